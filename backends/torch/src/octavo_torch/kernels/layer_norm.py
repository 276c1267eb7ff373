"""LayerNorm over the last axis."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch.nn import functional

from octavo_torch.kernels.kernel import Case, Kernel
from octavo_torch.kernels.rows import rows_of, tile_of_rows

__all__ = ["KERNELS", "layer_norm"]


@triton.jit(do_not_specialize=["num_rows"])
def _layer_norm(
    x_ptr,  # rows at (row // heads) * token_stride + (row % heads) * head_stride
    weight_ptr,  # [dim]
    bias_ptr,  # [dim]; not read unless HAS_BIAS
    out_ptr,  # [rows, dim]
    num_rows,
    dim,
    heads,
    token_stride,
    head_stride,
    eps,
    HAS_BIAS: tl.constexpr,
    ROW_TILE: tl.constexpr,
    DIM_TILE: tl.constexpr,
):
    row = tl.program_id(0) * ROW_TILE + tl.arange(0, ROW_TILE)
    column = tl.arange(0, DIM_TILE)
    start = (row // heads).to(tl.int64) * token_stride + (row % heads).to(tl.int64) * head_stride
    inside = (row < num_rows)[:, None] & (column < dim)[None, :]
    x = tl.load(x_ptr + start[:, None] + column[None, :], mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(x, axis=1) / dim
    centred = tl.where(inside, x - mean[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1) / dim + eps)
    weight = tl.load(weight_ptr + column, mask=column < dim, other=0.0).to(tl.float32)
    normalised = centred * scale[:, None] * weight[None, :]
    if HAS_BIAS:
        bias = tl.load(bias_ptr + column, mask=column < dim, other=0.0).to(tl.float32)
        normalised += bias[None, :]
    out = out_ptr + row.to(tl.int64)[:, None] * dim + column[None, :]
    tl.store(out, normalised.to(out_ptr.dtype.element_ty), mask=inside)


def layer_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """Mean and variance normalisation in float32, rounded to the dtype of x; contiguous."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    rows = rows_of(x)
    if rows.num_rows:
        row_tile, dim_tile, options = tile_of_rows("rms_norm", rows)
        _layer_norm[(triton.cdiv(rows.num_rows, row_tile),)](
            rows.tensor, weight, weight if bias is None else bias, out, *rows[1:], eps,
            HAS_BIAS=bias is not None, ROW_TILE=row_tile, DIM_TILE=dim_tile, **options,
        )  # fmt: skip
    return out


def _reference(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    wide = None if bias is None else bias.double()
    return functional.layer_norm(x.double(), weight.shape, weight.double(), wide, eps).to(x.dtype)


def _case(
    rows: int,
    dim: int,
    dtype: torch.dtype = torch.bfloat16,
    *,
    has_bias: bool = True,
    ahead: bool = False,
) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device).to(dtype)

        x, weight = normal(rows, dim) + 1, normal(dim)
        return {"x": x, "weight": weight, "bias": normal(dim) if has_bias else None, "eps": 1e-5}

    name = str(dtype).removeprefix("torch.")
    label = f"{rows}x{dim}-{name}" + "-bias" * has_bias
    return Case(label, make, dtypes=(name,), ahead=ahead)


KERNELS = (
    Kernel(
        "layer_norm",
        layer_norm,
        _reference,
        (
            _case(3, 72, torch.float32),
            _case(2, 500, torch.float16, has_bias=False),
            _case(5, 48),
            _case(64, 4096, ahead=True),
        ),
    ),
)
