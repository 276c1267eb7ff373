"""The op set of the NumPy backend: the portable defaults, overridden where time goes."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias, cast

import array_api_compat.numpy as xp
import numpy as np
from numpy.typing import NDArray

from octavo.api import AttentionParams, PortableOps
from octavo_cpu.kernels import activation, norm, rotary
from octavo_cpu.kernels.decode import DecodeTask, HeadShape, make_decode_tasks
from octavo_cpu.kernels.keys import KeyReader
from octavo_cpu.kernels.prefill import attend_tile, make_tiles
from octavo_cpu.plan import KeyRange, NumpyPlan
from octavo_cpu.row_products import RowProducts
from octavo_cpu.storage import NumpyCache, NumpyLinear, saturated
from octavo_cpu.threads import Workers

__all__ = ["NumpyOps"]

Array: TypeAlias = Any  # a NumPy array of whatever dtype
Float32 = NDArray[np.float32]

_MAX_GEMV_ROWS = 3  # up to here a matrix-vector product for each row beats one matrix product
_MIN_SHARED_PRODUCTS = 1 << 21  # multiplications; fewer are done before a thread wakes up
_PARTS_PER_THREAD = 2
_MIN_COLUMNS = 128
_MIN_SHARED_KEYS = 512  # fewer keys than this are not worth waking a second thread


class NumpyOps(PortableOps):
    """Computes in float32 and rounds each result to the dtype of the input."""

    def __init__(self, num_threads: int) -> None:
        super().__init__(xp)
        self._workers = Workers(num_threads)
        self._row_products = RowProducts(num_threads)

    def start_step(self, num_tokens: int) -> None:
        """A step of so many tokens begins."""
        self._row_products.start_step(num_tokens if num_tokens <= _MAX_GEMV_ROWS else 0)

    def close(self) -> None:
        """End the threads."""
        self._workers.close()

    def linear(self, x: Array, weight: NumpyLinear) -> Array:
        """``x @ weight.T + bias``."""
        x32 = x.astype(np.float32, copy=False)
        matrix = weight.matrix
        product = np.empty((len(x), matrix.shape[1]), np.float32)
        if len(x) <= _MAX_GEMV_ROWS:
            self._row_products.multiply(x32, matrix, product)
        elif len(x) * matrix.size < _MIN_SHARED_PRODUCTS:
            np.matmul(x32, matrix, out=product)
        else:
            self._workers.run(
                lambda part: np.matmul(x32, matrix[:, part], out=product[:, part]),
                self._column_parts(matrix.shape[1]),
            )
        if weight.bias is not None:
            product += weight.bias
        return product.astype(x.dtype, copy=False)

    def _column_parts(self, num_columns: int) -> list[slice]:
        """Slices of columns, more than there are threads so that a late thread takes fewer."""
        num_parts = min(_PARTS_PER_THREAD * self._workers.count, num_columns // _MIN_COLUMNS or 1)
        size = -(-num_columns // num_parts)
        return [slice(start, start + size) for start in range(0, num_columns, size)]

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """``x / sqrt(mean(x²) + eps) * weight`` over the last axis."""
        x32 = x.astype(np.float32, copy=False)
        normalised = norm.rms_norm(x32, weight.astype(np.float32, copy=False), eps)
        return normalised.astype(x.dtype, copy=False)

    def layer_norm(self, x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
        """Mean and variance normalisation over the last axis."""
        bias32 = None if bias is None else bias.astype(np.float32, copy=False)
        x32 = x.astype(np.float32, copy=False)
        normalised = norm.layer_norm(x32, weight.astype(np.float32, copy=False), bias32, eps)
        return normalised.astype(x.dtype, copy=False)

    def rope(self, x: Array, cos: Array, sin: Array) -> Array:
        """Rotate the first ``2 * half`` features, pairing i with i + half."""
        rotated = rotary.rotate(x.astype(np.float32, copy=False), cos, sin)
        return rotated.astype(x.dtype, copy=False)

    def silu_mul(self, gate_up: Array) -> Array:
        """``silu(gate) * up`` where gate is the first half of the features and up the second."""
        product = activation.silu_mul(gate_up.astype(np.float32, copy=False))
        return product.astype(gate_up.dtype, copy=False)

    def gelu_mul(self, gate_up: Array, *, tanh: bool) -> Array:
        """``gelu(gate) * up``; tanh chooses the tanh approximation over erf."""
        if not tanh:
            return super().gelu_mul(gate_up, tanh=tanh)
        product = activation.gelu_mul(gate_up.astype(np.float32, copy=False))
        return product.astype(gate_up.dtype, copy=False)

    def write_kv(self, cache: NumpyCache, k: Array, v: Array, plan: NumpyPlan) -> NumpyCache:
        """Store K and V of this step's tokens at the plan's slots, in place."""
        slot_shape = (-1, *cache.k.shape[2:])
        if cache.k.dtype.itemsize == 1:
            k, v = saturated(k, cache.k.dtype), saturated(v, cache.v.dtype)
        cache.k.reshape(slot_shape)[plan.slots] = k
        cache.v.reshape(slot_shape)[plan.slots] = v
        return cache

    def paged_attention(
        self,
        q: Array,
        cache: NumpyCache,
        plan: NumpyPlan,
        params: AttentionParams,
        sinks: Array | None = None,
    ) -> Array:
        """Attention of each token over its sequence's cached keys."""
        tokens, num_heads, head_dim = q.shape
        kv_heads = cache.k.shape[2]
        heads = HeadShape(kv_heads, num_heads // kv_heads, head_dim)
        grouped = np.multiply(q, np.float32(params.scale), dtype=np.float32)
        grouped = grouped.reshape(tokens, kv_heads, heads.group, head_dim)
        if sinks is not None:
            sinks = sinks.astype(np.float32, copy=False).reshape(kv_heads, heads.group, 1)
        out = np.zeros(grouped.shape, np.float32)  # rows of padding stay zero
        tasks, prefills = self._tasks(plan, params.window, heads, cache)
        self._workers.run(
            lambda task: task.run(
                grouped[..., None], cache.k, cache.v, out[..., None, :], params.soft_cap, sinks
            ),
            tasks,
        )
        if prefills:
            self._attend_prefills(grouped, cache, prefills, params, sinks, out)
        return out.reshape(q.shape).astype(q.dtype, copy=False)

    def _tasks(
        self, plan: NumpyPlan, window: int | None, heads: HeadShape, cache: NumpyCache
    ) -> tuple[list[DecodeTask], list[KeyRange]]:
        """The step's decode tasks and prefills, worked out by the first layer that asks."""
        name = (window, heads)
        if name not in plan.tasks:
            ranges = plan.key_ranges(window)
            decodes = [keys for keys in ranges if keys.is_decode]
            is_shared = sum(keys.num_keys for keys in decodes) >= _MIN_SHARED_KEYS
            plan.tasks[name] = (
                make_decode_tasks(decodes, heads, cache.k, self._workers.count if is_shared else 1),
                [keys for keys in ranges if not keys.is_decode],
            )
        return cast("tuple[list[DecodeTask], list[KeyRange]]", plan.tasks[name])

    def _attend_prefills(
        self,
        q: Float32,
        cache: NumpyCache,
        prefills: list[KeyRange],
        params: AttentionParams,
        sinks: Float32 | None,
        out: Float32,
    ) -> None:
        max_blocks = max(len(keys.blocks) for keys in prefills)
        k_reader, v_reader = (
            KeyReader(max_blocks, cache.k.shape[1:], cache.k.dtype) for _ in range(2)
        )
        sinks_by_query = None if sinks is None else sinks[..., None]
        for keys in prefills:
            rows = slice(keys.first_token, keys.first_token + keys.num_tokens)
            self._workers.run(
                partial(
                    attend_tile,
                    q[rows],
                    k_reader.read(cache.k, keys),
                    v_reader.read(cache.v, keys),
                    params,
                    sinks_by_query,
                    out[rows],
                ),
                make_tiles(keys, q.shape[1] * q.shape[2], params),
            )
