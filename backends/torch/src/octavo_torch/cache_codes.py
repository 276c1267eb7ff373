"""Keys and values as a cache stores them, and back: plain torch, on any device."""

from __future__ import annotations

import torch

from octavo.api import PortableCache
from octavo_torch.caches import TorchCache, as_indexed

__all__ = ["as_portable", "read_blocks", "write_tokens"]

_INT8_MAX = 127.0


def write_tokens(
    cache: TorchCache, k: torch.Tensor, v: torch.Tensor, slots: torch.Tensor
) -> TorchCache:
    """Store K and V, both [tokens, kv_heads, head_dim], at ``slots`` [tokens], in place."""
    block_size = cache.k.shape[2]
    slots = slots.long()
    blocks, offsets = slots // block_size, slots % block_size
    for stored, scale, numbers in ((cache.k, cache.k_scale, k), (cache.v, cache.v_scale, v)):
        codes, scales = _encode(numbers, stored.dtype, scale)
        as_indexed(stored)[blocks, :, offsets] = as_indexed(codes)
        if scale is not None and scales is not None:
            scale[blocks, :, offsets] = scales
    return cache


def _encode(
    numbers: torch.Tensor, dtype: torch.dtype, scale: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(codes, scales of each token and head, where the cache has such)."""
    if dtype == torch.int8:
        numbers = numbers.float()
        scales = numbers.abs().amax(-1) / _INT8_MAX  # [tokens, kv_heads]
        divisors = torch.where(scales > 0, scales, 1.0)
        return (numbers / divisors[..., None]).round().to(dtype), scales
    if dtype.itemsize > 1:
        return numbers.to(dtype), None
    numbers = numbers.float()
    if scale is not None:
        numbers = numbers / scale[:, None]
    largest = torch.finfo(dtype).max
    return numbers.clamp(-largest, largest).to(dtype), None


def read_blocks(
    stored: torch.Tensor, scale: torch.Tensor | None, blocks: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """[seqs, kv_heads, blocks * block_size, head_dim], a copy: the blocks [seqs, blocks] in order.

    In ``dtype``, or in float32 where there are scales.
    """
    num_blocks, kv_heads, block_size, head_dim = stored.shape
    num_seqs, num_read = blocks.shape
    heads = torch.arange(kv_heads, device=blocks.device)
    # Each head's block is one row, so that one copy puts the heads outside of the blocks.
    rows = (blocks.long()[:, None, :] * kv_heads + heads[:, None]).reshape(-1)
    codes = as_indexed(stored).reshape(num_blocks * kv_heads, -1).index_select(0, rows)
    codes = codes.view(stored.dtype).view(num_seqs, kv_heads, num_read * block_size, head_dim)
    if scale is None:
        return codes.to(dtype)
    if scale.ndim == 1:
        return codes.float() * scale[:, None, None]
    scales = scale.reshape(num_blocks * kv_heads, -1).index_select(0, rows)
    return codes.float() * scales.view(num_seqs, kv_heads, -1, 1)


def as_portable(cache: TorchCache) -> PortableCache:
    """The whole cache as the portable ops read one: a view, or a float32 copy of 8-bit codes."""

    def read(stored: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
        if stored.itemsize == 1:
            stored = stored.float()
        if scale is not None:
            stored = stored * (scale[:, None, None] if scale.ndim == 1 else scale[..., None])
        return stored.transpose(1, 2)

    return PortableCache(read(cache.k, cache.k_scale), read(cache.v, cache.v_scale))
