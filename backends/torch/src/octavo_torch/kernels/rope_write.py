"""Rotary embedding of queries and keys, with the write of keys and values to the cache."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from octavo_torch.caches import TorchCache
from octavo_torch.kernels.kernel import Kernel
from octavo_torch.kernels.stored import cache_arguments, store_rows, stored_reference
from octavo_torch.kernels.stored_cases import ROPE_CASES, as_tensors, cloned

__all__ = ["KERNELS", "rope_write"]


@triton.jit
def _rotated(
    x_rows,  # pointers [heads]
    is_head,
    cos_ptr,  # float32[half] of this token
    sin_ptr,
    HALF: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
):
    """float32[heads, D_PAD], rounded to x's dtype: feature i is turned with i + HALF."""
    dim = tl.arange(0, D_PAD)
    is_first = dim < HALF
    is_turned = dim < 2 * HALF
    other = tl.where(is_first, dim + HALF, dim - HALF)
    angle = tl.where(is_first, dim, dim - HALF)
    inside = is_head[:, None] & (dim < D)[None, :]
    x = tl.load(x_rows[:, None] + dim[None, :], mask=inside, other=0.0)
    has_other = is_head[:, None] & is_turned[None, :]
    y = tl.load(x_rows[:, None] + other[None, :], mask=has_other, other=0.0).to(tl.float32)
    cos = tl.load(cos_ptr + angle, mask=is_turned, other=1.0)
    sin = tl.load(sin_ptr + angle, mask=is_turned, other=0.0)
    turned = x.to(tl.float32) * cos[None, :] + y * tl.where(is_first, -sin, sin)[None, :]
    return turned.to(x.dtype).to(tl.float32)


@triton.jit
def _rope_write(
    q_ptr,  # [tokens, heads, head_dim]
    k_ptr,  # [tokens, kv_heads, head_dim]
    v_ptr,
    cos_ptr,  # float32[tokens, half]
    sin_ptr,
    slots_ptr,  # i32[tokens]
    q_out_ptr,  # [tokens, heads, head_dim], contiguous
    k_cache_ptr,  # [num_blocks, kv_heads, block_size, head_dim]
    v_cache_ptr,
    k_scale_ptr,
    v_scale_ptr,
    q_token_stride,
    q_head_stride,
    k_token_stride,
    k_head_stride,
    v_token_stride,
    v_head_stride,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    KIND: tl.constexpr,
    HEAD_SCALES: tl.constexpr,
    KV_HEADS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    HEAD_TILE: tl.constexpr,
):
    # The first programs of a token have tiles of query heads, the others of KV heads.
    Q_TILES: tl.constexpr = (HEADS + HEAD_TILE - 1) // HEAD_TILE
    token = tl.program_id(0).to(tl.int64)
    tile = tl.program_id(1)
    dim = tl.arange(0, D_PAD)
    cos_row = cos_ptr + token * HALF
    sin_row = sin_ptr + token * HALF
    if tile < Q_TILES:
        head = tile * HEAD_TILE + tl.arange(0, HEAD_TILE)
        rows = q_ptr + token * q_token_stride + head * q_head_stride
        q = _rotated(rows, head < HEADS, cos_row, sin_row, HALF, D, D_PAD)
        place = q_out_ptr + (token * HEADS + head)[:, None] * D + dim[None, :]
        inside = (head < HEADS)[:, None] & (dim < D)[None, :]
        tl.store(place, q.to(q_out_ptr.dtype.element_ty), mask=inside)
    else:
        head = (tile - Q_TILES) * HEAD_TILE + tl.arange(0, HEAD_TILE)
        inside = (head < KV_HEADS)[:, None] & (dim < D)[None, :]
        slot = tl.load(slots_ptr + token)
        rows = k_ptr + token * k_token_stride + head * k_head_stride
        k = _rotated(rows, head < KV_HEADS, cos_row, sin_row, HALF, D, D_PAD)
        store_rows(
            k, k_cache_ptr, k_scale_ptr, head, slot, inside,
            KIND, HEAD_SCALES, KV_HEADS, BLOCK_SIZE, D, D_PAD,
        )  # fmt: skip
        rows = v_ptr + token * v_token_stride + head * v_head_stride
        v = tl.load(rows[:, None] + dim[None, :], mask=inside, other=0.0).to(tl.float32)
        store_rows(
            v, v_cache_ptr, v_scale_ptr, head, slot, inside,
            KIND, HEAD_SCALES, KV_HEADS, BLOCK_SIZE, D, D_PAD,
        )  # fmt: skip


def rope_write(
    cache: TorchCache,
    q: torch.Tensor,  # [tokens, heads, head_dim]
    k: torch.Tensor,  # [tokens, kv_heads, head_dim]
    v: torch.Tensor,
    cos: torch.Tensor,  # float32[tokens, half]; 2 * half features are turned
    sin: torch.Tensor,
    slots: torch.Tensor,  # i32[tokens]
) -> tuple[torch.Tensor, TorchCache]:
    """The rotated queries, and the cache, written in place with the rotated keys and the values."""
    num_tokens, heads, head_dim = q.shape
    kv_heads = k.shape[1]
    q_out = q.new_empty(q.shape)
    if not num_tokens:
        return q_out, cache
    q, k, v = (x if x.stride(2) == 1 else x.contiguous() for x in (q, k, v))
    tile = min(triton.next_power_of_2(kv_heads), max(1, 2048 // triton.next_power_of_2(head_dim)))
    _rope_write[(num_tokens, triton.cdiv(heads, tile) + triton.cdiv(kv_heads, tile))](
        q_ptr=q, k_ptr=k, v_ptr=v, cos_ptr=cos.contiguous(), sin_ptr=sin.contiguous(),
        slots_ptr=slots, q_out_ptr=q_out,
        q_token_stride=q.stride(0), q_head_stride=q.stride(1),
        k_token_stride=k.stride(0), k_head_stride=k.stride(1),
        v_token_stride=v.stride(0), v_head_stride=v.stride(1),
        HEADS=heads, HALF=cos.shape[1], HEAD_TILE=tile, num_warps=4, **cache_arguments(cache),
    )  # fmt: skip
    return q_out, cache


def _launch(
    cache: TorchCache,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    slots: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    rotated, written = rope_write(cloned(cache), q, k, v, cos, sin, slots)
    return (rotated, *as_tensors(written))


def _reference(
    cache: TorchCache,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    slots: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    written = stored_reference(cache, _turned(k, cos, sin), v, slots)
    return (_turned(q, cos, sin), *as_tensors(written))


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = cos.shape[1]
    first, second = x[..., :half].float(), x[..., half : 2 * half].float()
    cos, sin = cos[:, None], sin[:, None]
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)
    return torch.cat([turned, x[..., 2 * half :]], -1)


KERNELS = (Kernel("rope_write", _launch, _reference, ROPE_CASES),)
