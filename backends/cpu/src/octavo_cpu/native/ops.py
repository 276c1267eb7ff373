"""The op set of the native backend: each op is one instruction, for now or for a recording."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import array_api_compat.numpy as xp
import numpy as np
from numpy.typing import NDArray

from octavo.api import (
    AttentionParams,
    BackendError,
    PortableOps,
    RopeSpec,
    SampleResult,
    SamplingBatch,
)
from octavo_cpu.native import sampling as native_sampling
from octavo_cpu.native.eager import Eager, Recorder
from octavo_cpu.native.instruction import Opcode
from octavo_cpu.native.rows import Untraceable
from octavo_cpu.native.traced import Traced
from octavo_cpu.native.views import Array, check_rows, check_shape, heads_of, rows_of, vector

if TYPE_CHECKING:
    from octavo_cpu.native.caches import NativeCache
    from octavo_cpu.native.library import Context, PackedLinear
    from octavo_cpu.native.plan import NativePlan

__all__ = ["NativeOps"]

_ROPE_KINDS = {"dynamic": 1, "longrope": 2}  # the others are in their inverse frequencies
_FLOAT32 = np.dtype(np.float32)


class NativeOps(PortableOps):
    """Computes in float32 and rounds each result to the dtype of the input.

    Composites are the portable ones: they call these ops, and so are recorded as these are.
    """

    portable_write_kv = portable_paged_attention = None  # plans and caches are the kernels' own

    def __init__(self, context: Context) -> None:
        super().__init__(xp)
        self._context = context
        self._eager = Eager(context)

    def _recorder(self, *operands: Array) -> Recorder:
        """Of the first operand that a step computes or brings, or the eager one."""
        for operand in operands:
            if isinstance(operand, Traced):
                if type(self) is not NativeOps:
                    raise Untraceable("some of its ops are not the backend's own")
                return operand.recording
        return self._eager

    def embed(self, token_ids: Array, table: Array) -> Array:
        """Rows of the embedding table."""
        return self._gather(Opcode.EMBED, table, token_ids)

    def take_rows(self, x: Array, rows: Array) -> Array:
        """Rows of x by index."""
        return self._gather(Opcode.TAKE_ROWS, x, rows)

    def _gather(self, opcode: Opcode, x: Array, indices: Array) -> Array:
        recorder = self._recorder(indices)
        if not isinstance(indices, Traced):
            indices = np.ascontiguousarray(indices, np.int32)
        check_shape(opcode, "indices of", indices.dtype, np.int32)
        is_table = opcode is Opcode.EMBED
        if is_table and not isinstance(x, Traced):
            x = np.ascontiguousarray(x)
        x, (num_rows, dim, stride) = rows_of(x)
        count = indices.shape[0]
        out = recorder.new((count, *x.shape[1:]), x.dtype)
        sizes = (count, dim, num_rows) if is_table else (count, dim, stride, num_rows)
        recorder.emit(opcode, x.dtype, (x, indices, out), sizes)
        return out

    def linear(self, x: Array, weight: PackedLinear) -> Array:
        """``x @ weight.T + bias``."""
        recorder = self._recorder(x)
        x, (rows, dim, stride) = rows_of(x)
        check_shape(Opcode.LINEAR, "rows of so many features:", dim, weight.in_features)
        out = recorder.new((rows, weight.out_features), x.dtype)
        sizes = (rows, stride, weight.in_features, weight.out_features)
        recorder.emit(Opcode.LINEAR, x.dtype, (x, weight, out), sizes)
        return out

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """``x / sqrt(mean(x²) + eps) * weight`` over the last axis."""
        recorder = self._recorder(x)
        out = recorder.new(x.shape, x.dtype)
        x, sizes = heads_of(x)
        weight = vector(weight, x.dtype, Opcode.RMS_NORM, sizes[2], "a weight")
        recorder.emit(Opcode.RMS_NORM, x.dtype, (x, weight, out), sizes, (eps,))
        return out

    def add_rms_norm(
        self, x: Array, residual: Array, weight: Array, eps: float
    ) -> tuple[Array, Array]:
        """``(rms_norm(x + residual), x + residual)``."""
        recorder, opcode = self._recorder(x), Opcode.ADD_RMS_NORM
        check_shape(opcode, "a residual of", residual.dtype, x.dtype)
        check_rows(opcode, x=x.shape[0], residual=residual.shape[0])
        check_shape(opcode, "a residual of", residual.shape[1:], x.shape[1:])
        x, (rows, dim, x_stride) = rows_of(x)
        residual, (_, _, residual_stride) = rows_of(residual)
        weight = vector(weight, x.dtype, opcode, dim, "a weight")
        out, total = (recorder.new(x.shape, x.dtype) for _ in range(2))
        operands = (x, residual, weight, out, total)
        recorder.emit(opcode, x.dtype, operands, (rows, dim, x_stride, residual_stride), (eps,))
        return out, total

    def layer_norm(self, x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
        """Mean and variance normalisation over the last axis."""
        recorder, opcode = self._recorder(x), Opcode.LAYER_NORM
        out = recorder.new(x.shape, x.dtype)
        x, sizes = heads_of(x)
        weight = vector(weight, x.dtype, opcode, sizes[2], "a weight")
        if bias is not None:
            bias = vector(bias, x.dtype, opcode, sizes[2], "a bias")
        recorder.emit(opcode, x.dtype, (x, weight, bias, out), sizes, (eps,))
        return out

    def rope_table(
        self, positions: Array, context_lens: Array, spec: RopeSpec
    ) -> tuple[Array, Array]:
        """(cos, sin) in float32."""
        recorder, opcode = self._recorder(positions), Opcode.ROPE_TABLE
        tokens, half = positions.shape[0], spec.rotary_dim // 2
        check_rows(opcode, positions=tokens, context_lens=context_lens.shape[0])
        if not isinstance(positions, Traced):
            positions = np.ascontiguousarray(positions, np.int32)
            context_lens = np.ascontiguousarray(context_lens, np.int32)
        cos, sin = (recorder.new((tokens, half), _FLOAT32) for _ in range(2))
        recorder.emit(
            opcode,
            _FLOAT32,
            (positions, context_lens, *_frequencies(spec), cos, sin),
            (tokens, half, _ROPE_KINDS.get(spec.kind, 0), spec.original_max_len),
            (spec.attention_factor, spec.base, spec.factor),
        )
        return cos, sin

    def rope(self, x: Array, cos: Array, sin: Array) -> Array:
        """Rotate the first ``2 * half`` features, pairing i with i + half."""
        recorder, opcode = self._recorder(x), Opcode.ROPE
        check_rows(opcode, x=x.shape[0], cos=cos.shape[0], sin=sin.shape[0])
        out = recorder.new(x.shape, x.dtype)
        x, (tokens, heads, head_dim, x_token, x_head) = heads_of(x)
        if not isinstance(cos, Traced):
            cos, sin = (np.ascontiguousarray(table, np.float32) for table in (cos, sin))
        sizes = (tokens, heads, head_dim, x_token, x_head, cos.shape[1])
        recorder.emit(opcode, x.dtype, (x, cos, sin, out), sizes)
        return out

    def silu_mul(self, gate_up: Array) -> Array:
        """``silu(gate) * up`` where gate is the first half of the features and up the second."""
        return self._gated(Opcode.SILU_MUL, gate_up)

    def gelu_mul(self, gate_up: Array, *, tanh: bool) -> Array:
        """``gelu(gate) * up``; tanh chooses the tanh approximation over erf."""
        return self._gated(Opcode.GELU_MUL, gate_up, int(tanh))

    def _gated(self, opcode: Opcode, gate_up: Array, *options: int) -> Array:
        recorder = self._recorder(gate_up)
        gate_up, (rows, dim, stride) = rows_of(gate_up)
        out = recorder.new((rows, dim // 2), gate_up.dtype)
        recorder.emit(opcode, gate_up.dtype, (gate_up, out), (rows, dim // 2, stride, *options))
        return out

    def gelu(self, x: Array, *, tanh: bool) -> Array:
        """GELU; tanh chooses the tanh approximation over erf."""
        return self._each(Opcode.GELU, x, (int(tanh),), ())

    def soft_cap(self, x: Array, cap: float) -> Array:
        """``cap * tanh(x / cap)``."""
        return self._each(Opcode.SOFT_CAP, x, (), (cap,))

    def _each(
        self, opcode: Opcode, x: Array, options: tuple[int, ...], scalars: tuple[float, ...]
    ) -> Array:
        recorder = self._recorder(x)
        out = recorder.new(x.shape, x.dtype)
        x, sizes = rows_of(x)
        recorder.emit(opcode, x.dtype, (x, out), (*sizes, *options), scalars)
        return out

    def write_kv(self, cache: NativeCache, k: Array, v: Array, plan: NativePlan) -> NativeCache:
        """Store K and V of this step's tokens at the plan's slots, in place."""
        recorder, opcode = self._recorder(k, plan.buffer), Opcode.WRITE_KV
        check_rows(opcode, k=k.shape[0], v=v.shape[0])
        for name, x in (("k", k), ("v", v)):
            check_shape(opcode, f"{name} of", x.shape[1:], (cache.kv_heads, cache.head_dim))
            check_shape(opcode, f"{name} of", x.dtype, k.dtype)
        k, (tokens, heads, head_dim, k_token, k_head) = heads_of(k)
        v, (*_, v_token, v_head) = heads_of(v)
        recorder.emit(
            opcode,
            k.dtype,
            (k, v, cache.k, cache.v, cache.scales, plan.buffer),
            (
                *(tokens, heads, head_dim, k_token, k_head, v_token, v_head),
                *(cache.block_size, cache.element),
            ),
        )
        return cache

    def paged_attention(
        self,
        q: Array,
        cache: NativeCache,
        plan: NativePlan,
        params: AttentionParams,
        sinks: Array | None = None,
    ) -> Array:
        """Attention of each token over its sequence's cached keys."""
        recorder, opcode = self._recorder(q, plan.buffer), Opcode.ATTENTION
        check_shape(opcode, "heads of", q.shape[2], cache.head_dim)
        if q.shape[1] % cache.kv_heads:
            raise BackendError(
                f"Op attention was given {q.shape[1]} heads; expected a multiple of the cache's "
                f"{cache.kv_heads}."
            )
        out = recorder.new(q.shape, q.dtype)
        q, (tokens, heads, head_dim, q_token, q_head) = heads_of(q)
        if sinks is not None:
            sinks = vector(sinks, q.dtype, opcode, heads, "sinks")
        kernel_operands = (
            *(q, cache.k, cache.v, cache.scales),
            *(plan.buffer, plan.scratch, sinks, out),
        )
        sizes = (
            *(tokens, heads, cache.kv_heads, head_dim, q_token, q_head, cache.block_size),
            *(params.window or 0, int(params.causal), cache.element),
        )
        scalars = (params.scale, params.soft_cap or 0.0)
        for each in (opcode, Opcode.ATTENTION_COMBINE):
            recorder.emit(each, q.dtype, kernel_operands, sizes, scalars)
        return out

    def sample(self, logits: Array, sampling: SamplingBatch) -> SampleResult:
        """One token per row of logits."""
        if isinstance(logits, Traced):
            self._recorder(logits)
            return native_sampling.record(logits, sampling)
        return native_sampling.sample(self._context, logits, sampling)

    def token_logprobs(self, logits: Array, token_ids: Array, num_logprobs: int) -> SampleResult:
        """Log-probabilities and ranks of given tokens; token_ids pass through."""
        if isinstance(logits, Traced):
            raise Untraceable("log-probabilities are no instruction")
        return native_sampling.token_logprobs(logits, token_ids, num_logprobs)


@lru_cache(maxsize=64)
def _frequencies(spec: RopeSpec) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Inverse frequencies, and those for long contexts."""
    long = spec.long_inv_freq
    return (
        np.array(spec.inv_freq, np.float32),
        None if long is None else np.array(long, np.float32),
    )
