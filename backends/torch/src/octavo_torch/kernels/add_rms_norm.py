"""The sum of a residual, and its RMSNorm, in one pass."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from octavo_torch.kernels.kernel import Case, Kernel
from octavo_torch.kernels.rows import rows_of, tile_of_rows

__all__ = ["KERNELS", "add_rms_norm"]


@triton.jit(do_not_specialize=["num_rows"])
def _add_rms_norm(
    x_ptr,  # [rows, dim], rows x_stride apart
    residual_ptr,  # [rows, dim], rows residual_stride apart
    weight_ptr,  # [dim]
    out_ptr,  # [rows, dim]
    total_ptr,  # [rows, dim]
    num_rows,
    dim,
    x_stride,
    residual_stride,
    eps,
    ROW_TILE: tl.constexpr,
    DIM_TILE: tl.constexpr,
):
    row = (tl.program_id(0) * ROW_TILE + tl.arange(0, ROW_TILE)).to(tl.int64)[:, None]
    column = tl.arange(0, DIM_TILE)[None, :]
    inside = (row < num_rows) & (column < dim)
    x = tl.load(x_ptr + row * x_stride + column, mask=inside, other=0.0)
    residual = tl.load(residual_ptr + row * residual_stride + column, mask=inside, other=0.0)
    rounded = (x.to(tl.float32) + residual.to(tl.float32)).to(total_ptr.dtype.element_ty)
    tl.store(total_ptr + row * dim + column, rounded, mask=inside)
    total = rounded.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(total * total, axis=1) / dim + eps)
    weight = tl.load(weight_ptr + column, mask=column < dim, other=0.0).to(tl.float32)
    normalised = total * scale[:, None] * weight
    tl.store(out_ptr + row * dim + column, normalised.to(out_ptr.dtype.element_ty), mask=inside)


def add_rms_norm(
    x: torch.Tensor,  # [tokens, dim]
    residual: torch.Tensor,  # [tokens, dim]
    weight: torch.Tensor,  # [dim]
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``(rms_norm(x + residual), x + residual)``; the norm is of the rounded sum."""
    rows, others = rows_of(x), rows_of(residual)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    total = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if rows.num_rows:
        row_tile, dim_tile, options = tile_of_rows("rms_norm", rows)
        _add_rms_norm[(triton.cdiv(rows.num_rows, row_tile),)](
            rows.tensor, others.tensor, weight, out, total,
            rows.num_rows, rows.dim, rows.token_stride, others.token_stride, eps,
            ROW_TILE=row_tile, DIM_TILE=dim_tile, **options,
        )  # fmt: skip
    return out, total


def _reference(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    total = x + residual
    total64 = total.double()
    scale = (total64.square().mean(-1, keepdim=True) + eps).rsqrt()
    return (total64 * scale * weight).to(x.dtype), total


def _case(
    tokens: int, dim: int, dtype: torch.dtype = torch.bfloat16, *, ahead: bool = False
) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device).to(dtype)

        return {
            "x": normal(tokens, dim),
            "residual": normal(tokens, 2 * dim)[:, dim:],
            "weight": normal(dim),
            "eps": 1e-5,
        }

    name = str(dtype).removeprefix("torch.")
    return Case(f"{tokens}x{dim}-{name}", make, dtypes=(name,), ahead=ahead)


KERNELS = (
    Kernel(
        "add_rms_norm",
        add_rms_norm,
        _reference,
        (
            _case(3, 96, torch.float32),
            _case(5, 200),
            _case(2, 1000, torch.float16),
            _case(64, 4096, ahead=True),
            _case(64, 16384, ahead=True),
        ),
    ),
)
