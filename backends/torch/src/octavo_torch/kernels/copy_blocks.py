"""Copies blocks by number: within a cache for forks, to and from a staging buffer for swaps."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from octavo_torch.kernels.kernel import Case, Kernel

__all__ = ["KERNELS", "copy_blocks"]


@triton.jit
def _copy_blocks(
    source_ptr,  # i32[blocks, words]
    target_ptr,  # i32[other blocks, words]
    from_ptr,  # i32[pairs]
    to_ptr,  # i32[pairs]
    words,
    TILE: tl.constexpr,
):
    pair = tl.program_id(0)
    word = tl.program_id(1) * TILE + tl.arange(0, TILE)
    source = source_ptr + tl.load(from_ptr + pair).to(tl.int64) * words
    target = target_ptr + tl.load(to_ptr + pair).to(tl.int64) * words
    tl.store(target + word, tl.load(source + word, mask=word < words, other=0), mask=word < words)


def copy_blocks(
    source: torch.Tensor,  # [blocks, ...], contiguous
    target: torch.Tensor,  # [other blocks, ...], contiguous, the same dtype and block
    from_blocks: torch.Tensor,  # i32[pairs]
    to_blocks: torch.Tensor,  # i32[pairs], each once and none that is read
) -> torch.Tensor:
    """``target``, written in place: ``target[to_blocks] = source[from_blocks]``, bit by bit.

    A block is a multiple of four bytes. The tensors are on one device, or in pinned memory.
    """
    pairs = from_blocks.shape[0]
    if not pairs:
        return target
    source_words, target_words = (
        side.reshape(side.shape[0], -1).view(torch.int32) for side in (source, target)
    )
    words = source_words.shape[1]
    _copy_blocks[(pairs, triton.cdiv(words, 2048))](
        source_words, target_words, from_blocks, to_blocks, words, TILE=2048, num_warps=4
    )
    return target


def _launch(
    source: torch.Tensor,
    target: torch.Tensor,
    from_blocks: torch.Tensor,
    to_blocks: torch.Tensor,
) -> torch.Tensor:
    return copy_blocks(source, target.clone(), from_blocks, to_blocks)


def _reference(
    source: torch.Tensor,
    target: torch.Tensor,
    from_blocks: torch.Tensor,
    to_blocks: torch.Tensor,
) -> torch.Tensor:
    copied = target.clone()
    copied[to_blocks.long()] = source[from_blocks.long()]
    return copied


def _case(kv_heads: int, head_dim: int, dtype: str, *, ahead: bool = False) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        shape = (6, kv_heads, 16, head_dim)
        source, target = (
            torch.randn(shape, generator=generator, device=device).to(getattr(torch, dtype))
            for _ in range(2)
        )
        from_blocks = torch.tensor([5, 1, 1], dtype=torch.int32, device=device)
        to_blocks = torch.tensor([0, 4, 2], dtype=torch.int32, device=device)
        return {
            "source": source,
            "target": target,
            "from_blocks": from_blocks,
            "to_blocks": to_blocks,
        }

    return Case(f"{kv_heads}x{head_dim} {dtype}", make, dtypes=(dtype,), ahead=ahead)


_CASES = (
    _case(3, 24, "float16"),
    _case(8, 128, "float32"),
    _case(8, 128, "bfloat16", ahead=True),
)
KERNELS = (Kernel("copy_blocks", _launch, _reference, _CASES),)
