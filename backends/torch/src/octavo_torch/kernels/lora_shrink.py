"""LoRA's first product: each token with the A of its own adapter, for several adapters at once.

``moe_align`` sorts the tokens by adapter. Ranks are small and inputs wide, so the input is split
among programs; ``lora_expand`` adds their parts.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from octavo_torch.kernels.kernel import Case, Kernel
from octavo_torch.kernels.moe_align import moe_align
from octavo_torch.kernels.target import target_of
from octavo_torch.kernels.tuning import launch_options

__all__ = ["KERNELS", "align_adapters", "lora_shrink"]


@triton.jit(do_not_specialize=["num_tokens"])
def _lora_shrink(
    x_ptr,  # [tokens, in_features]
    a_ptr,  # [adapters, rank, in_features]
    order_ptr,  # i32[tiles * ROW_TILE]
    tile_adapters_ptr,  # i32[tiles]
    parts_ptr,  # float32[splits, tokens, rank]
    num_tokens,
    num_adapters,
    rank,
    in_features,
    x_stride,
    split_steps,
    ROW_TILE: tl.constexpr,
    RANK_TILE: tl.constexpr,
    IN_TILE: tl.constexpr,
):
    tile = tl.program_id(0)
    split = tl.program_id(1)
    adapter = tl.load(tile_adapters_ptr + tile)
    if adapter >= num_adapters:
        return
    token = tl.load(order_ptr + tile * ROW_TILE + tl.arange(0, ROW_TILE))
    is_token = token < num_tokens
    feature = tl.arange(0, RANK_TILE)
    is_feature = feature < rank
    x_rows = x_ptr + token.to(tl.int64)[:, None] * x_stride
    a_rows = a_ptr + (adapter.to(tl.int64) * rank + feature)[None, :] * in_features
    total = tl.zeros((ROW_TILE, RANK_TILE), tl.float32)
    first = split * split_steps
    for step in range(first, tl.minimum(first + split_steps, tl.cdiv(in_features, IN_TILE))):
        column = step * IN_TILE + tl.arange(0, IN_TILE)
        is_column = column < in_features
        x = tl.load(
            x_rows + column[None, :], mask=is_token[:, None] & is_column[None, :], other=0.0
        )
        a_mask = is_column[:, None] & is_feature[None, :]
        a = tl.load(a_rows + column[:, None], mask=a_mask, other=0.0)
        total = tl.dot(x, a, total, input_precision="ieee")
    part_rows = parts_ptr + (split.to(tl.int64) * num_tokens + token)[:, None] * rank
    tl.store(part_rows + feature[None, :], total, mask=is_token[:, None] & is_feature[None, :])


def align_adapters(
    adapter_ids: torch.Tensor,  # i32[tokens]: 1 for the first adapter, 0 for none
    num_adapters: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``moe_align``'s order and tiles, once a step: for all products with these adapters."""
    return moe_align(adapter_ids - 1, num_adapters, _row_tile(adapter_ids.device))


def _row_tile(device: torch.device) -> int:
    tile: int = launch_options("lora_shrink", device)["row_tile"]
    return tile


def lora_shrink(
    x: torch.Tensor,  # [tokens, in_features]
    a: torch.Tensor,  # [adapters, rank, in_features], contiguous
    order: torch.Tensor,
    tile_adapters: torch.Tensor,
) -> torch.Tensor:
    """Parts of ``x @ a[adapter].T``, to be added: float32[splits, tokens, rank].

    Rows of tokens without an adapter are unspecified.
    """
    num_adapters, rank, in_features = a.shape
    options = launch_options("lora_shrink", x.device)
    row_tile, in_tile = options.pop("row_tile"), options.pop("in_tile")
    steps = triton.cdiv(in_features, in_tile)
    splits = max(
        1, min(target_of(x.device).num_units // max(1, len(tile_adapters)), steps // 2, 16)
    )
    split_steps = triton.cdiv(steps, splits)
    splits = triton.cdiv(steps, split_steps)
    parts = x.new_empty((splits, len(x), rank), dtype=torch.float32)
    if len(tile_adapters):
        _lora_shrink[(len(tile_adapters), splits)](
            x, a, order, tile_adapters, parts,
            len(x), num_adapters, rank, in_features, x.stride(0), split_steps,
            ROW_TILE=row_tile, RANK_TILE=max(16, triton.next_power_of_2(rank)), IN_TILE=in_tile,
            **options,
        )  # fmt: skip
    return parts


def _launch(x: torch.Tensor, a: torch.Tensor, adapter_ids: torch.Tensor) -> torch.Tensor:
    return lora_shrink(x, a, *align_adapters(adapter_ids, len(a))).sum(0)


def reference(x: torch.Tensor, a: torch.Tensor, adapter_ids: torch.Tensor) -> torch.Tensor:
    """A token at a time; NaN where it has no adapter."""
    rows = [
        a[adapter - 1].double() @ row.double() if adapter else torch.full((a.shape[1],), torch.nan)
        for row, adapter in zip(x, adapter_ids.tolist(), strict=True)
    ]
    return torch.stack([row.double() for row in rows]).float()


def _case(
    tokens: int,
    num_adapters: int,
    rank: int,
    in_features: int,
    dtype: str = "bfloat16",
    *,
    ahead: bool = False,
) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device)

        ids = torch.randint(0, num_adapters + 1, (tokens,), generator=generator, device=device)
        a = normal(num_adapters, rank, in_features) / in_features**0.5
        return {
            "x": normal(tokens, in_features).to(getattr(torch, dtype)),
            "a": a.to(getattr(torch, dtype)),
            "adapter_ids": ids.to(torch.int32),
        }

    label = f"{tokens}x{in_features}-{num_adapters}-rank{rank}-{dtype}"
    matrix = {"cuda": "matrix", "hip": "matrix"} if ahead else {}
    return Case(label, make, dtypes=("float32",), ahead=ahead, expects=matrix)


KERNELS = (
    Kernel(
        "lora_shrink",
        _launch,
        reference,
        (
            _case(5, 3, 8, 600),
            _case(40, 2, 24, 72, "float32"),
            _case(1, 1, 64, 128, "float16"),
            _case(256, 16, 16, 4096, ahead=True),
        ),
    ),
)
