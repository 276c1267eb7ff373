"""LoRA's second product, added to what the layer itself computed."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from octavo_torch.kernels.kernel import Case, Kernel
from octavo_torch.kernels.lora_shrink import align_adapters
from octavo_torch.kernels.tuning import launch_options

__all__ = ["KERNELS", "lora_expand"]


@triton.jit(do_not_specialize=["num_tokens"])
def _lora_expand(
    y_ptr,  # [tokens, out_features], y_stride from row to row
    parts_ptr,  # float32[SPLITS, tokens, rank]
    b_ptr,  # [adapters, out_features, rank]
    scales_ptr,  # float32[adapters]
    order_ptr,  # i32[tiles * ROW_TILE]
    tile_adapters_ptr,  # i32[tiles]
    num_tokens,
    num_adapters,
    out_features,
    rank,
    y_stride,
    SPLITS: tl.constexpr,
    ROW_TILE: tl.constexpr,
    OUT_TILE: tl.constexpr,
    RANK_TILE: tl.constexpr,
):
    tile = tl.program_id(0)
    adapter = tl.load(tile_adapters_ptr + tile)
    if adapter >= num_adapters:
        return
    token = tl.load(order_ptr + tile * ROW_TILE + tl.arange(0, ROW_TILE))
    is_token = token < num_tokens
    out = tl.program_id(1) * OUT_TILE + tl.arange(0, OUT_TILE)
    is_out = out < out_features
    feature = tl.arange(0, RANK_TILE)
    is_feature = feature < rank
    part = parts_ptr + token.to(tl.int64)[:, None] * rank + feature[None, :]
    is_part = is_token[:, None] & is_feature[None, :]
    shrunk = tl.zeros((ROW_TILE, RANK_TILE), tl.float32)
    for split in range(SPLITS):
        shrunk += tl.load(
            part + tl.cast(split, tl.int64) * num_tokens * rank, mask=is_part, other=0.0
        )
    b_rows = b_ptr + (adapter.to(tl.int64) * out_features + out)[None, :] * rank
    b = tl.load(b_rows + feature[:, None], mask=is_feature[:, None] & is_out[None, :], other=0.0)
    added = tl.dot(shrunk.to(b.dtype), b, input_precision="ieee")
    added *= tl.load(scales_ptr + adapter)
    y_rows = y_ptr + token.to(tl.int64)[:, None] * y_stride
    inside = is_token[:, None] & is_out[None, :]
    y = tl.load(y_rows + out[None, :], mask=inside, other=0.0)
    total = y.to(tl.float32) + added
    tl.store(y_rows + out[None, :], total.to(y_ptr.dtype.element_ty), mask=inside)


def lora_expand(
    y: torch.Tensor,  # [tokens, out_features]; may be a slice of the columns of a wider one
    parts: torch.Tensor,  # float32[splits, tokens, rank], of lora_shrink
    b: torch.Tensor,  # [adapters, out_features, rank], contiguous
    scales: torch.Tensor,  # float32[adapters]
    order: torch.Tensor,
    tile_adapters: torch.Tensor,
) -> torch.Tensor:
    """Adds ``scale * parts.sum(0) @ b[adapter].T`` to y in place, and returns y.

    Rows of tokens without an adapter stay as they are.
    """
    num_adapters, out_features, rank = b.shape
    options = launch_options("lora_expand", y.device)
    out_tile = options.pop("out_tile")
    if len(tile_adapters):
        _lora_expand[(len(tile_adapters), triton.cdiv(out_features, out_tile))](
            y, parts, b, scales, order, tile_adapters,
            len(y), num_adapters, out_features, rank, y.stride(0),
            SPLITS=len(parts), ROW_TILE=len(order) // len(tile_adapters), OUT_TILE=out_tile,
            RANK_TILE=max(16, triton.next_power_of_2(rank)), **options,
        )  # fmt: skip
    return y


def _launch(
    y: torch.Tensor,
    parts: torch.Tensor,
    b: torch.Tensor,
    scales: torch.Tensor,
    adapter_ids: torch.Tensor,
) -> torch.Tensor:
    tiles = align_adapters(adapter_ids, len(b))
    wide = torch.cat([y, y], 1)  # the second half must not change
    lora_expand(wide[:, : y.shape[1]], parts, b, scales, *tiles)
    return wide


def _reference(
    y: torch.Tensor,
    parts: torch.Tensor,
    b: torch.Tensor,
    scales: torch.Tensor,
    adapter_ids: torch.Tensor,
) -> torch.Tensor:
    total = y.double()
    for token, adapter in enumerate(adapter_ids.tolist()):
        if adapter:
            added = b[adapter - 1].double() @ parts.double().sum(0)[token]
            total[token] += scales[adapter - 1].double() * added
    return torch.cat([total.to(y.dtype), y], 1)


def _case(
    tokens: int,
    num_adapters: int,
    rank: int,
    out_features: int,
    dtype: str = "bfloat16",
    *,
    splits: int = 1,
    ahead: bool = False,
) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device)

        ids = torch.randint(0, num_adapters + 1, (tokens,), generator=generator, device=device)
        return {
            "y": normal(tokens, out_features).to(getattr(torch, dtype)),
            "parts": normal(splits, tokens, rank) / splits**0.5,
            "b": (normal(num_adapters, out_features, rank) / rank**0.5).to(getattr(torch, dtype)),
            "scales": torch.rand(num_adapters, generator=generator, device=device),
            "adapter_ids": ids.to(torch.int32),
        }

    label = f"{tokens}x{out_features}-{num_adapters}-rank{rank}-{dtype}"
    matrix = {"cuda": "matrix", "hip": "matrix"} if ahead else {}
    return Case(label, make, dtypes=(dtype,), ahead=ahead, expects=matrix)


KERNELS = (
    Kernel(
        "lora_expand",
        _launch,
        _reference,
        (
            _case(5, 3, 8, 200, splits=3),
            _case(40, 2, 24, 72, "float32"),
            _case(1, 1, 64, 136, "float16"),
            _case(256, 16, 16, 4096, splits=8, ahead=True),
        ),
    ),
)
