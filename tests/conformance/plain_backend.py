"""A backend written for the eye: one token at a time, nothing clever; the mutants are its bugs.

Every step of paged attention is a small method, so that a mutant is one override. It claims all
there is to claim, batch invariance too, because each token is computed without a look at others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import array_api_compat.numpy as xp
import ml_dtypes
import numpy as np
from plain_plugin import DEVICE, SPEC  # noqa: F401 - whoever imports the backend wants them

from octavo.api import (
    BackendError,
    Capabilities,
    DeviceError,
    MemoryInfo,
    PortableOps,
    QuantizedTensor,
    UsageError,
    make_plans,
)

DTYPES = ("float32", "bfloat16", "float16")
KV_DTYPES = (*DTYPES, "float8_e4m3fn", "float8_e5m2", "int8")
INT8_STEPS = 127


def dtype_named(name):
    return np.dtype(getattr(np, name, None) or getattr(ml_dtypes, name))


@dataclass(frozen=True)
class PlainLinear:
    weight: np.ndarray  # f32[out_features, in_features]
    bias: np.ndarray | None


@dataclass(frozen=True)
class PlainCache:
    """Keys and values by slot; an int8 cache has a scale for each slot and head."""

    k: np.ndarray  # [slots, kv_heads, head_dim]
    v: np.ndarray
    k_scale: np.ndarray  # f32[slots, kv_heads, 1]; 1 unless int8
    v_scale: np.ndarray
    block_size: int


class PlainOps(PortableOps):
    """PortableOps with row-by-row products and token-by-token attention."""

    def __init__(self):
        super().__init__(xp)

    def linear(self, x, weight):
        rows = [weight.weight @ row for row in x.astype(np.float32)]
        product = np.array(rows, np.float32).reshape(len(x), len(weight.weight))
        if weight.bias is not None:
            product += weight.bias
        return product.astype(x.dtype)

    def write_kv(self, cache, k, v, plan):
        slots = self.slots_to_write(plan, cache.block_size)
        self.store(cache.k, cache.k_scale, slots, k)
        self.store(cache.v, cache.v_scale, slots, v)
        return cache

    def slots_to_write(self, plan, block_size):
        return plan.slots

    def store(self, rows, scales, slots, values):
        """Write values at slots, as the cache's dtype stores them."""
        values = values.astype(np.float32)
        if rows.dtype == np.int8:
            largest = np.abs(values).max(axis=-1, keepdims=True)
            scale = np.where(largest > 0, largest, 1) / INT8_STEPS
            scales[slots] = scale
            with np.errstate(invalid="ignore"):  # the padding of K and V is NaN
                rows[slots] = np.rint(values / scale).astype(np.int8)
            return
        if rows.dtype.itemsize == 1:  # fp8 overflows to NaN or infinity: saturate
            top = float(ml_dtypes.finfo(rows.dtype).max)
            values = np.clip(values, -top, top)
        rows[slots] = values.astype(rows.dtype)

    def paged_attention(self, q, cache, plan, params, sinks=None):
        out = np.zeros(q.shape, np.float32)
        for token in range(len(q)):
            seq = plan.token_seqs[token]
            positions = self.visible(
                int(plan.positions[token]), int(plan.seq_lens[seq]), params, cache.block_size
            )
            if len(positions):
                slots = self.slots_to_read(plan.block_table[seq], positions, cache.block_size)
                k, v = self.read_keys(cache, slots), self.read_values(cache, slots)
                out[token] = self.attend_token(q[token].astype(np.float32), k, v, params, sinks)
        return out.astype(q.dtype)

    def visible(self, position, seq_len, params, block_size):
        """Positions of the keys that the token at ``position`` sees."""
        first, last = 0, seq_len - 1
        if params.causal:
            last = min(last, position)
        if params.window is not None:
            first = max(0, position - params.window + 1)
            if not params.causal:
                last = min(last, position + params.window - 1)
        return np.arange(first, last + 1)

    def slots_to_read(self, blocks, positions, block_size):
        return blocks[positions // block_size] * block_size + positions % block_size

    def read_keys(self, cache, slots):
        return cache.k[slots].astype(np.float32) * cache.k_scale[slots]

    def read_values(self, cache, slots):
        return cache.v[slots].astype(np.float32) * cache.v_scale[slots]

    def kv_heads_of(self, num_heads, num_kv_heads):
        """The KV head that each query head reads."""
        return np.arange(num_heads) // (num_heads // num_kv_heads)

    def attend_token(self, q, k, v, params, sinks):
        """One token: q [heads, dim]; k, v [keys, kv_heads, dim]; returns [heads, dim]."""
        kv_heads = self.kv_heads_of(len(q), k.shape[1])
        scores = (q[None] * k[:, kv_heads]).sum(axis=-1) * np.float32(params.scale)
        if params.soft_cap is not None:
            scores = params.soft_cap * np.tanh(scores / params.soft_cap)
        top = scores.max(axis=0)
        weights = np.exp(scores - top)
        total = weights.sum(axis=0)
        if sinks is not None:
            total = total + np.exp(sinks.astype(np.float32) - top)
        return ((weights / total)[..., None] * v[:, kv_heads]).sum(axis=0)


class PlainBackend:
    """octavo.api.Backend in the fewest words."""

    caps = Capabilities(
        dtypes=DTYPES,
        kv_dtypes=KV_DTYPES,
        block_sizes=(16, 4, 1, 2, 8, 32, 64),
        max_head_dim=1024,
        sliding_window=True,
        soft_cap=True,
        sinks=True,
        quantization=("gguf:Q8_0",),
        batch_invariant=True,
        host_swap=True,
        separate_sampling=True,
    )
    ops_class: type[PlainOps] = PlainOps

    def __init__(self, index, options):
        if index != 0:
            raise DeviceError(f"There is no device plain:{index}; there is plain:0.")
        if options:
            raise UsageError(f"Backend 'plain' has no option {min(options)!r}; it has none.")
        self.ops = self.ops_class()

    def memory(self):
        return MemoryInfo(free_bytes=1 << 32, total_bytes=1 << 33, shared_with_host=True)

    def put(self, array, dtype=None):
        return np.array(array, None if dtype is None else dtype_named(dtype))

    def get(self, array):
        return array

    def put_linear(self, weight, bias, dtype):
        of = dtype_named(dtype)
        if isinstance(weight, QuantizedTensor):
            weight = self.unpack(weight)
        bias = None if bias is None else bias.astype(of).astype(np.float32)
        return PlainLinear(weight.astype(of).astype(np.float32), bias)

    def unpack(self, packed):
        """Q8_0: runs of 32 codes of 8 bits, each behind its scale in float16."""
        if packed.scheme != "gguf:Q8_0":
            raise BackendError(f"Backend 'plain' takes no weight packed as {packed.scheme}.")
        blocks = packed.data.reshape(-1, 34)
        scales, codes = blocks[:, :2].view(np.float16), blocks[:, 2:].view(np.int8)
        return (codes * scales.astype(np.float32)).reshape(packed.shape)

    def make_kv(self, spec, num_blocks, block_size, *, on_host=False):
        shape = (num_blocks * block_size, spec.num_kv_heads, spec.head_dim)
        k, v = (np.zeros(shape, dtype_named(spec.dtype)) for _ in "kv")
        k_scale, v_scale = (np.ones((*shape[:2], 1), np.float32) for _ in "kv")
        return PlainCache(k, v, k_scale, v_scale, block_size)

    def copy_blocks(self, src, dst, pairs):
        for source, target in zip(self.arrays(src), self.arrays(dst), strict=True):
            target[pairs[:, 1]] = source[pairs[:, 0]]
        return dst

    def arrays(self, cache):
        """Every array of a cache, by block."""
        arrays = (cache.k, cache.v, cache.k_scale, cache.v_scale)
        return [array.reshape(-1, cache.block_size, *array.shape[1:]) for array in arrays]

    def plan(self, batch, block_size):
        return make_plans(batch, self.put)

    def __init_subclass__(cls, **options):
        """What brings a ``compile`` of its own takes whole steps only."""
        super().__init_subclass__(**options)
        if "compile" in vars(cls) and isinstance(cls.caps, Capabilities):
            cls.caps = replace(cls.caps, separate_sampling=False)

    def compile(self, step):
        return step

    def close(self):
        pass


def with_caps(**changes):
    """The capabilities of PlainBackend, changed."""
    return replace(PlainBackend.caps, **changes)


def backend_with(*, ops: Any = PlainOps, **members):
    """A ``load`` function: PlainBackend with another op set or other members."""
    return type("Mutated" + PlainBackend.__name__, (PlainBackend,), {"ops_class": ops, **members})
