"""The paged keys and values of one layer, in the layout that the kernels read.

::

    16 bits, int8   k [blocks][kv_heads][head_dim / 2][block_size][2]
                    v [blocks][kv_heads][block_size / 2][head_dim][2]
    float32         k [blocks][kv_heads][head_dim][block_size]
                    v [blocks][kv_heads][block_size][head_dim]

Keys lie side by side, so that a vector holds one feature (or a pair) of many keys; pairs are what
products of bfloat16 take. An odd head_dim is filled up with a zero in k. int8 codes have a float32
scale for each token and head: [blocks][kv_heads][2 (k, v)][block_size].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from octavo_cpu.native.instruction import Element
from octavo_cpu.native.library import spread

if TYPE_CHECKING:
    from octavo.api import KVSpec

__all__ = ["BLOCK_SIZES", "KV_ELEMENTS", "SCALE_BYTES", "NativeCache", "copy_blocks", "make_cache"]

BLOCK_SIZES = (16, 32, 64, 128)

KV_ELEMENTS = {
    "bfloat16": Element.BF16,
    "float32": Element.F32,
    "float16": Element.F16,
    "int8": Element.I8,
}
"""The dtypes a cache may have."""

SCALE_BYTES = 4
"""Of the float32 beside an int8 cache's keys of one token and head, and beside its values."""

_DTYPES = {
    Element.BF16: np.dtype(ml_dtypes.bfloat16),
    Element.F32: np.dtype(np.float32),
    Element.F16: np.dtype(np.float16),
    Element.I8: np.dtype(np.int8),
}
_ALIGNMENT_BYTES = 64
_SLACK_BYTES = 256  # whole vectors are loaded, and so may reach behind the last row


@dataclass(frozen=True)
class NativeCache:
    """One layer's blocks; the kernels write into the arrays in place."""

    k: NDArray[Any]  # [blocks, elements of a block]
    v: NDArray[Any]
    scales: NDArray[np.float32] | None  # [blocks, kv_heads, 2, block_size], for int8
    block_size: int
    kv_heads: int
    head_dim: int
    element: Element


def make_cache(spec: KVSpec, num_blocks: int, block_size: int) -> NativeCache:
    """An empty cache: all zeros, and blocks that nobody touched take no memory."""
    if block_size not in BLOCK_SIZES:
        raise ValueError(f"{block_size=} is none of {', '.join(map(str, BLOCK_SIZES))}.")
    if spec.dtype not in KV_ELEMENTS:
        raise ValueError(
            f"Backend 'native' has no cache of {spec.dtype}; it has {', '.join(KV_ELEMENTS)}."
        )
    element = KV_ELEMENTS[spec.dtype]
    heads, head_dim = spec.num_kv_heads, spec.head_dim
    k_dim = head_dim if element is Element.F32 else head_dim + head_dim % 2
    scales = None
    if element is Element.I8:
        flat = _zeros(num_blocks, heads * 2 * block_size, np.dtype(np.float32))
        scales = flat.reshape(num_blocks, heads, 2, block_size)
    return NativeCache(
        k=_zeros(num_blocks, heads * k_dim * block_size, _DTYPES[element]),
        v=_zeros(num_blocks, heads * head_dim * block_size, _DTYPES[element]),
        scales=scales,
        block_size=block_size,
        kv_heads=heads,
        head_dim=head_dim,
        element=element,
    )


def _zeros(num_blocks: int, block_elements: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    num_bytes = num_blocks * block_elements * dtype.itemsize
    memory = np.zeros(num_bytes + _ALIGNMENT_BYTES + _SLACK_BYTES, np.uint8)
    spread(memory)
    start = -memory.ctypes.data % _ALIGNMENT_BYTES
    return memory[start : start + num_bytes].view(dtype).reshape(num_blocks, block_elements)


def copy_blocks(src: NativeCache, dst: NativeCache, pairs: NDArray[np.int32]) -> NativeCache:
    """Copy blocks ``pairs[i] = (from block in src, to block in dst)``, in place in ``dst``."""
    from_blocks, to_blocks = pairs[:, 0], pairs[:, 1]
    dst.k[to_blocks] = src.k[from_blocks]
    dst.v[to_blocks] = src.v[from_blocks]
    if dst.scales is not None and src.scales is not None:
        dst.scales[to_blocks] = src.scales[from_blocks]
    return dst
