"""Products with a matrix of each expert's own: the rows of a tile belong to one expert.

``moe_align`` makes the tiles. The grid covers all tiles that there can be; those that are left over
end at once.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from octavo_torch.kernels import moe_align
from octavo_torch.kernels.kernel import Case, Kernel
from octavo_torch.kernels.tuning import launch_options

__all__ = ["KERNELS", "grouped_matmul", "rows_per_tile"]


@triton.jit(do_not_specialize=["num_entries"])
def _grouped_matmul(
    x_ptr,  # [rows, in_features]
    weights_ptr,  # [experts, out_features, in_features]; twice as many of them if SILU_MUL
    order_ptr,  # i32[tiles * ROW_TILE]
    tile_experts_ptr,  # i32[tiles]
    out_ptr,  # [entries, out_features]
    num_entries,
    num_experts,
    out_features,
    in_features,
    x_stride,
    expert_stride,
    entries_per_row,
    SILU_MUL: tl.constexpr,
    ROW_TILE: tl.constexpr,
    OUT_TILE: tl.constexpr,
    IN_TILE: tl.constexpr,
):
    # Programs that share a tile of weights run side by side.
    tile = tl.program_id(0)
    expert = tl.load(tile_experts_ptr + tile)
    if expert >= num_experts:
        return
    entry = tl.load(order_ptr + tile * ROW_TILE + tl.arange(0, ROW_TILE))
    is_entry = entry < num_entries
    out = tl.program_id(1) * OUT_TILE + tl.arange(0, OUT_TILE)
    is_out = out < out_features
    x_rows = x_ptr + (entry // entries_per_row).to(tl.int64)[:, None] * x_stride
    own_rows = weights_ptr + expert.to(tl.int64) * expert_stride
    gate_rows = own_rows + out.to(tl.int64)[None, :] * in_features
    up_rows = own_rows + (out.to(tl.int64) + out_features)[None, :] * in_features
    gate = tl.zeros((ROW_TILE, OUT_TILE), tl.float32)
    up = tl.zeros((ROW_TILE, OUT_TILE), tl.float32)
    for step in range(tl.cdiv(in_features, IN_TILE)):
        column = step * IN_TILE + tl.arange(0, IN_TILE)
        is_column = column < in_features
        x_mask = is_entry[:, None] & is_column[None, :]
        weight_mask = is_column[:, None] & is_out[None, :]
        x = tl.load(x_rows + column[None, :], mask=x_mask, other=0.0)
        weight = tl.load(gate_rows + column[:, None], mask=weight_mask, other=0.0)
        gate = tl.dot(x, weight, gate, input_precision="ieee")
        if SILU_MUL:
            weight = tl.load(up_rows + column[:, None], mask=weight_mask, other=0.0)
            up = tl.dot(x, weight, up, input_precision="ieee")
    if SILU_MUL:
        gate = gate * tl.sigmoid(gate) * up
    out_rows = out_ptr + entry.to(tl.int64)[:, None] * out_features
    tl.store(
        out_rows + out[None, :],
        gate.to(out_ptr.dtype.element_ty),
        mask=is_entry[:, None] & is_out[None, :],
    )


def rows_per_tile(num_entries: int, num_experts: int, device: torch.device) -> int:
    """The tile to give to ``moe_align``, for as many entries as an expert has on average."""
    tile: int = _options(num_entries, num_experts, device)["row_tile"]
    return tile


def _options(
    num_entries: int, num_experts: int, device: torch.device, **shape: int
) -> dict[str, Any]:
    rows = num_entries // num_experts
    return launch_options("grouped_matmul", device, rows=rows, **shape)


def grouped_matmul(
    x: torch.Tensor,  # [rows, in_features]
    weights: torch.Tensor,  # [experts, out_features, in_features], contiguous
    order: torch.Tensor,  # i32[tiles * rows_per_tile(…)]
    tile_experts: torch.Tensor,  # i32[tiles]
    *,
    entries_per_row: int = 1,
    silu_mul: bool = False,
) -> torch.Tensor:
    """``x[entry // entries_per_row] @ weights[expert].T`` [entries, out_features] in x's dtype.

    With ``silu_mul``, the first half of an expert's out_features is the gate: ``silu(gate) * up``.
    Rows of entries that are in no tile are unspecified.
    """
    num_experts, out_features, in_features = weights.shape
    out_features = out_features // 2 if silu_mul else out_features
    num_entries = len(x) * entries_per_row
    out = x.new_empty(num_entries, out_features)
    if not num_entries:
        return out
    shape = {"silu_mul": int(silu_mul), "x_bytes": x.element_size()}
    options = _options(num_entries, num_experts, x.device, **shape)
    row_tile, out_tile, in_tile = (options.pop(f"{name}_tile") for name in ("row", "out", "in"))
    grid = (len(tile_experts), triton.cdiv(out_features, out_tile))
    _grouped_matmul[grid](
        x, weights, order, tile_experts, out,
        num_entries, num_experts, out_features, in_features, x.stride(0), weights.stride(0),
        entries_per_row, SILU_MUL=silu_mul,
        ROW_TILE=row_tile, OUT_TILE=out_tile, IN_TILE=in_tile, **options,
    )  # fmt: skip
    return out


def _launch(
    x: torch.Tensor, weights: torch.Tensor, expert_ids: torch.Tensor, *, silu_mul: bool
) -> torch.Tensor:
    tile = rows_per_tile(expert_ids.numel(), len(weights), x.device)
    tiles = moe_align.moe_align(expert_ids, len(weights), tile)
    top_k = expert_ids.shape[1]
    return grouped_matmul(x, weights, *tiles, entries_per_row=top_k, silu_mul=silu_mul)


def reference(
    x: torch.Tensor, weights: torch.Tensor, expert_ids: torch.Tensor, *, silu_mul: bool
) -> torch.Tensor:
    """An entry at a time; NaN where the expert is nobody's."""
    products = []
    for token, ids in enumerate(expert_ids.tolist()):
        for expert in ids:
            known = 0 <= expert < len(weights)
            weight = weights[expert if known else 0].double()
            product = weight @ x[token].double()
            if silu_mul:
                gate, up = product.chunk(2)
                product = torch.nn.functional.silu(gate) * up
            products.append(product if known else product * torch.nan)
    return torch.stack(products).to(x.dtype)


def _case(
    tokens: int,
    top_k: int,
    num_experts: int,
    out_features: int,
    in_features: int,
    dtype: str = "bfloat16",
    *,
    silu_mul: bool = False,
    ahead: bool = False,
) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device)

        ids = torch.randint(0, num_experts + 1, (tokens, top_k), generator=generator, device=device)
        weights = normal(num_experts, out_features, in_features) / in_features**0.5
        return {
            "x": normal(tokens, in_features).to(getattr(torch, dtype)),
            "weights": weights.to(getattr(torch, dtype)),
            "expert_ids": ids.to(torch.int32),
            "silu_mul": silu_mul,
        }

    shape = f"{tokens}x{top_k}-of-{num_experts}-{out_features}x{in_features}"
    label = f"{shape}-{dtype}{'-silu' * silu_mul}"
    matrix = {"cuda": "matrix", "hip": "matrix"} if ahead else {}
    return Case(label, make, dtypes=(dtype,), ahead=ahead, expects=matrix)


KERNELS = (
    Kernel(
        "grouped_matmul",
        _launch,
        reference,
        (
            _case(1, 2, 4, 24, 40),
            _case(23, 3, 3, 96, 72, silu_mul=True),
            _case(40, 1, 1, 20, 136, "float32", silu_mul=True),
            _case(150, 1, 1, 136, 24, "float16"),
            _case(8192, 8, 128, 1536, 2048, silu_mul=True, ahead=True),
            _case(8192, 8, 128, 2048, 768, ahead=True),
        ),
    ),
)
