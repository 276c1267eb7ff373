"""The op set on torch: the portable ops, overridden where torch does better."""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

import torch
from torch.nn import functional

from octavo.api import AttentionParams, LinearWeight, PortableOps
from octavo_torch.attention import paged_attention
from octavo_torch.cache_codes import as_portable, write_tokens
from octavo_torch.caches import TorchCache
from octavo_torch.constants import KeptConstants
from octavo_torch.quantized import QuantizedLinear, multiply_unpacked

__all__ = ["TorchOps"]

Array: TypeAlias = Any  # a torch.Tensor


class TorchOps(PortableOps):
    """Plain torch, for any of its devices: float32 inside, each result rounded once.

    What the backends of GPUs put kernels over, fall back to, and are compared with. Nothing waits
    for the device.
    """

    reads_host_plan: ClassVar[bool] = True
    """Attention goes by the host's numbers in the plan, so that no graph of it can be replayed."""

    def __init__(self) -> None:
        super().__init__(KeptConstants())

    def embed(self, token_ids: Array, table: Array) -> Array:
        """Rows of the embedding table."""
        return functional.embedding(token_ids, table)

    def linear(self, x: Array, weight: LinearWeight) -> Array:
        """``x @ weight.T + bias``; torch's products of 16-bit numbers sum in float32."""
        if isinstance(weight, QuantizedLinear):
            return multiply_unpacked(x, weight)
        matrix: Array = weight.weight
        if matrix.dtype == x.dtype:
            return functional.linear(x, matrix, weight.bias)
        computed = torch.promote_types(x.dtype, matrix.dtype)
        bias: Array = weight.bias
        bias = None if bias is None else bias.to(computed)
        return functional.linear(x.to(computed), matrix.to(computed), bias).to(x.dtype)

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """``x / sqrt(mean(x²) + eps) * weight`` over the last axis."""
        return functional.rms_norm(x.float(), weight.shape, weight.float(), eps).to(x.dtype)

    def layer_norm(self, x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
        """Mean and variance normalisation over the last axis."""
        bias = None if bias is None else bias.float()
        normalised = functional.layer_norm(x.float(), weight.shape, weight.float(), bias, eps)
        return normalised.to(x.dtype)

    def rope(self, x: Array, cos: Array, sin: Array) -> Array:
        """Rotate the first ``2 * half`` features, pairing i with i + half."""
        half = cos.shape[1]
        cos, sin = cos[:, None], sin[:, None]
        first, second = x[..., :half].float(), x[..., half : 2 * half].float()
        parts = [first * cos - second * sin, second * cos + first * sin]
        if 2 * half < x.shape[2]:
            parts.append(x[..., 2 * half :].float())
        return torch.cat(parts, -1).to(x.dtype)

    def silu_mul(self, gate_up: Array) -> Array:
        """``silu(gate) * up`` where gate is the first half of the features and up the second."""
        gate, up = gate_up.float().chunk(2, -1)
        return (functional.silu(gate) * up).to(gate_up.dtype)

    def gelu_mul(self, gate_up: Array, *, tanh: bool) -> Array:
        """``gelu(gate) * up``; tanh chooses the tanh approximation over erf."""
        gate, up = gate_up.float().chunk(2, -1)
        return (functional.gelu(gate, approximate=_form(tanh)) * up).to(gate_up.dtype)

    def gelu(self, x: Array, *, tanh: bool) -> Array:
        """GELU; tanh chooses the tanh approximation over erf."""
        return functional.gelu(x.float(), approximate=_form(tanh)).to(x.dtype)

    def take_rows(self, x: Array, rows: Array) -> Array:
        """Rows of x by index."""
        return x.index_select(0, rows)

    def write_kv(self, cache: TorchCache, k: Array, v: Array, plan: Any) -> TorchCache:
        """Store K and V of this step's tokens at the plan's slots, in place."""
        return write_tokens(cache, k, v, plan.slots)

    def paged_attention(
        self,
        q: Array,
        cache: TorchCache,
        plan: Any,
        params: AttentionParams,
        sinks: Array | None = None,
    ) -> Array:
        """Attention of each token over its sequence's cached keys."""
        return paged_attention(q, cache, plan, params, sinks)

    def portable_write_kv(self, cache: TorchCache, k: Array, v: Array, plan: Any) -> TorchCache:
        """``write_kv`` for ``--attention-backend portable``: the cache stays as it is here."""
        return write_tokens(cache, k, v, plan.slots)

    def portable_paged_attention(
        self,
        q: Array,
        cache: TorchCache,
        plan: Any,
        params: AttentionParams,
        sinks: Array | None = None,
    ) -> Array:
        """Octavo's definition of attention, over the numbers that the cache stands for."""
        return PortableOps.paged_attention(self, q, as_portable(cache), plan, params, sinks)


def _form(tanh: bool) -> str:
    return "tanh" if tanh else "none"
