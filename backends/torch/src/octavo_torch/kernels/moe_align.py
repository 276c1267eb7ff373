"""Sorts entries (a token's choices of experts, or of adapters) by expert, in tiles for a matmul.

All on the device and in shapes that depend on no value. Entries of one expert keep their order, so
that the result is always the same. The first kernel counts; in the second, each expert's program
finds where its tiles begin and puts its entries there.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from octavo_torch.kernels.kernel import Case, Kernel
from octavo_torch.kernels.tuning import launch_options

__all__ = ["KERNELS", "moe_align"]


@triton.jit(do_not_specialize=["num_entries"])
def _count_entries(ids_ptr, counts_ptr, num_entries, CHUNK: tl.constexpr):
    expert = tl.program_id(0)
    found = tl.zeros((CHUNK,), tl.int32)
    for start in range(0, num_entries, CHUNK):
        entry = start + tl.arange(0, CHUNK)
        ids = tl.load(ids_ptr + entry, mask=entry < num_entries, other=-1)
        found += (ids == expert).to(tl.int32)
    tl.store(counts_ptr + expert, tl.sum(found))


@triton.jit(do_not_specialize=["num_entries"])
def _place_entries(
    ids_ptr,  # i32[entries]
    counts_ptr,  # i32[experts]
    order_ptr,  # i32[tiles * TILE], full of num_entries
    tile_experts_ptr,  # i32[tiles], full of num_experts
    num_entries,
    num_experts,
    EXPERTS: tl.constexpr,  # a power of two, num_experts or more
    TILE: tl.constexpr,
    CHUNK: tl.constexpr,
):
    expert = tl.program_id(0)
    each = tl.arange(0, EXPERTS)
    counts = tl.load(counts_ptr + each, mask=each < num_experts, other=0)
    tiles = (counts + TILE - 1) // TILE
    first_tile = tl.sum(tl.where(each < expert, tiles, 0))
    num_tiles = tl.sum(tl.where(each == expert, tiles, 0))
    for tile in range(num_tiles):
        tl.store(tile_experts_ptr + first_tile + tile, expert)
    place = first_tile * TILE
    for start in range(0, num_entries, CHUNK):
        entry = start + tl.arange(0, CHUNK)
        ids = tl.load(ids_ptr + entry, mask=entry < num_entries, other=-1)
        is_own = (ids == expert).to(tl.int32)
        before = tl.cumsum(is_own, 0) - is_own
        tl.store(order_ptr + place + before, entry, mask=is_own > 0)
        place += tl.sum(is_own)


def moe_align(
    expert_ids: torch.Tensor,  # i32, contiguous: an entry each
    num_experts: int,
    tile: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``order`` i32[tiles * tile] has the entries by expert, ``tile_experts`` i32[tiles] whose.

    Places that are left over have the number of entries, tiles the number of experts. An entry
    whose expert is not in [0, num_experts) is in no tile.
    """
    num_entries = expert_ids.numel()
    num_tiles = min(num_entries, (num_entries + num_experts * (tile - 1)) // tile)
    order = expert_ids.new_full((num_tiles * tile,), num_entries)
    tile_experts = expert_ids.new_full((num_tiles,), num_experts)
    if not num_entries:
        return order, tile_experts
    options = launch_options("moe_align", expert_ids.device)
    chunk = min(options.pop("chunk"), triton.next_power_of_2(num_entries))
    counts = expert_ids.new_empty(num_experts)
    _count_entries[(num_experts,)](expert_ids, counts, num_entries, CHUNK=chunk, **options)
    _place_entries[(num_experts,)](
        expert_ids, counts, order, tile_experts, num_entries, num_experts,
        EXPERTS=triton.next_power_of_2(num_experts), TILE=tile, CHUNK=chunk, **options,
    )  # fmt: skip
    return order, tile_experts


def reference(
    expert_ids: torch.Tensor, num_experts: int, tile: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same, an expert at a time."""
    ids = expert_ids.flatten()
    num_entries = len(ids)
    num_tiles = min(num_entries, (num_entries + num_experts * (tile - 1)) // tile)
    order = torch.full((num_tiles, tile), num_entries, dtype=torch.int32)
    tile_experts = torch.full((num_tiles,), num_experts, dtype=torch.int32)
    used = 0
    for expert in range(num_experts):
        for part in (ids == expert).nonzero().flatten().split(tile):
            if len(part):
                order[used, : len(part)] = part
                tile_experts[used] = expert
                used += 1
    return order.flatten(), tile_experts


def _case(tokens: int, top_k: int, num_experts: int, tile: int) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        ids = torch.randint(
            -1, num_experts + 1, (tokens, top_k), generator=generator, device=device
        )
        return {"expert_ids": ids.to(torch.int32), "num_experts": num_experts, "tile": tile}

    return Case(f"{tokens}x{top_k}-of-{num_experts}-tile{tile}", make)


KERNELS = (
    Kernel(
        "moe_align",
        moe_align,
        reference,
        (
            _case(1, 2, 4, 16),
            _case(37, 3, 5, 16),
            _case(1100, 1, 3, 32),
        ),
    ),
)
