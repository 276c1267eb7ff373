"""A layer's keys and values on a torch device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from octavo.api import step_tree
from octavo_torch.dtypes import torch_dtype

if TYPE_CHECKING:
    from octavo.api import KVSpec

__all__ = ["TorchCache", "as_indexed", "block_parts", "copy_blocks", "make_cache"]


@step_tree
@dataclass(frozen=True)
class TorchCache:
    """Heads outside of tokens, so that one head's block is one piece of memory.

    Scales turn the codes of an 8-bit cache into numbers: one for each token and head, or one for
    each head; absent where the dtype needs none.
    """

    k: torch.Tensor  # [num_blocks, kv_heads, block_size, head_dim]
    v: torch.Tensor
    k_scale: torch.Tensor | None = None  # float32 [num_blocks, kv_heads, block_size] or [kv_heads]
    v_scale: torch.Tensor | None = None


def make_cache(
    spec: KVSpec, num_blocks: int, block_size: int, device: torch.device, *, pinned: bool = False
) -> TorchCache:
    """Zeros; ``pinned`` for host memory that a GPU copies from and to by itself."""
    shape = (num_blocks, spec.num_kv_heads, block_size, spec.head_dim)
    dtype = torch_dtype(spec.dtype)
    k, v = (torch.zeros(shape, dtype=dtype, device=device, pin_memory=pinned) for _ in "kv")
    if dtype != torch.int8:
        return TorchCache(k, v)
    scales = (torch.zeros(shape[:3], device=device, pin_memory=pinned) for _ in "kv")
    return TorchCache(k, v, *scales)


def copy_blocks(src: TorchCache, dst: TorchCache, pairs: NDArray[np.int32]) -> TorchCache:
    """Copy blocks ``pairs[i] = (from block in src, to block in dst)``, in place in ``dst``."""
    if not len(pairs):
        return dst
    from_blocks, to_blocks = (torch.from_numpy(np.array(side, np.int64)) for side in pairs.T)
    from_blocks, to_blocks = from_blocks.to(src.k.device), to_blocks.to(dst.k.device)
    for stored, target in zip(block_parts(src), block_parts(dst), strict=True):
        target[to_blocks] = stored[from_blocks].to(target.device)
    return dst


def block_parts(cache: TorchCache) -> list[torch.Tensor]:
    """What belongs to blocks, [num_blocks, ...] each: not scales that hold for a whole head."""
    parts = [cache.k, cache.v]
    parts += [scale for scale in (cache.k_scale, cache.v_scale) if scale is not None]
    return [as_indexed(part) for part in parts if part.ndim > 1]


def as_indexed(stored: torch.Tensor) -> torch.Tensor:
    """The same memory, as bytes where torch cannot index the dtype: 8-bit floats."""
    return stored.view(torch.uint8) if stored.itemsize == 1 else stored
