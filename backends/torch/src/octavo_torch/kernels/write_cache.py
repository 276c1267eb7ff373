"""Writes this step's keys and values to their slots in the cache, quantised where it is."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from octavo_torch.caches import TorchCache
from octavo_torch.kernels.kernel import Kernel
from octavo_torch.kernels.stored import cache_arguments, store_rows, stored_reference
from octavo_torch.kernels.stored_cases import WRITE_CASES, as_tensors, cloned

__all__ = ["KERNELS", "write_cache"]


@triton.jit
def _write_cache(
    k_ptr,  # [tokens, kv_heads, head_dim]
    v_ptr,
    slots_ptr,  # i32[tokens]
    k_cache_ptr,  # [num_blocks, kv_heads, block_size, head_dim]
    v_cache_ptr,
    k_scale_ptr,
    v_scale_ptr,
    k_token_stride,
    k_head_stride,
    v_token_stride,
    v_head_stride,
    KIND: tl.constexpr,
    HEAD_SCALES: tl.constexpr,
    KV_HEADS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    HEAD_TILE: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEAD_TILE + tl.arange(0, HEAD_TILE)
    dim = tl.arange(0, D_PAD)
    inside = (head < KV_HEADS)[:, None] & (dim < D)[None, :]
    slot = tl.load(slots_ptr + token)
    k_rows = k_ptr + token * k_token_stride + head * k_head_stride
    v_rows = v_ptr + token * v_token_stride + head * v_head_stride
    k = tl.load(k_rows[:, None] + dim[None, :], mask=inside, other=0.0).to(tl.float32)
    v = tl.load(v_rows[:, None] + dim[None, :], mask=inside, other=0.0).to(tl.float32)
    store_rows(
        k, k_cache_ptr, k_scale_ptr, head, slot, inside,
        KIND, HEAD_SCALES, KV_HEADS, BLOCK_SIZE, D, D_PAD,
    )  # fmt: skip
    store_rows(
        v, v_cache_ptr, v_scale_ptr, head, slot, inside,
        KIND, HEAD_SCALES, KV_HEADS, BLOCK_SIZE, D, D_PAD,
    )  # fmt: skip


def write_cache(
    cache: TorchCache,
    k: torch.Tensor,  # [tokens, kv_heads, head_dim]
    v: torch.Tensor,
    slots: torch.Tensor,  # i32[tokens]: block * block_size + offset
) -> TorchCache:
    """The cache, written in place. Float8 saturates; int8 gets a scale for each token and head."""
    num_tokens, kv_heads, head_dim = k.shape
    if not num_tokens:
        return cache
    k, v = (x if x.stride(2) == 1 else x.contiguous() for x in (k, v))
    tile = min(triton.next_power_of_2(kv_heads), max(1, 2048 // triton.next_power_of_2(head_dim)))
    _write_cache[(num_tokens, triton.cdiv(kv_heads, tile))](
        k_ptr=k, v_ptr=v, slots_ptr=slots,
        k_token_stride=k.stride(0), k_head_stride=k.stride(1),
        v_token_stride=v.stride(0), v_head_stride=v.stride(1),
        HEAD_TILE=tile, num_warps=4, **cache_arguments(cache),
    )  # fmt: skip
    return cache


def _launch(
    cache: TorchCache, k: torch.Tensor, v: torch.Tensor, slots: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    return as_tensors(write_cache(cloned(cache), k, v, slots))


def _reference(
    cache: TorchCache, k: torch.Tensor, v: torch.Tensor, slots: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    return as_tensors(stored_reference(cache, k, v, slots))


KERNELS = (Kernel("write_cache", _launch, _reference, WRITE_CASES),)
