"""RMSNorm over the last axis, of rows that may lie apart (the heads of q within qkv)."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from octavo_torch.kernels.kernel import Case, Kernel
from octavo_torch.kernels.rows import rows_of, tile_of_rows

__all__ = ["KERNELS", "rms_norm"]


@triton.jit(do_not_specialize=["num_rows"])
def _rms_norm(
    x_ptr,  # rows at (row // heads) * token_stride + (row % heads) * head_stride
    weight_ptr,  # [dim]
    out_ptr,  # [rows, dim]
    num_rows,
    dim,
    heads,
    token_stride,
    head_stride,
    eps,
    ROW_TILE: tl.constexpr,
    DIM_TILE: tl.constexpr,
):
    row = tl.program_id(0) * ROW_TILE + tl.arange(0, ROW_TILE)
    column = tl.arange(0, DIM_TILE)
    start = (row // heads).to(tl.int64) * token_stride + (row % heads).to(tl.int64) * head_stride
    inside = (row < num_rows)[:, None] & (column < dim)[None, :]
    x = tl.load(x_ptr + start[:, None] + column[None, :], mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + column, mask=column < dim, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, axis=1) / dim + eps)
    normalised = x * scale[:, None] * weight[None, :]
    out = out_ptr + row.to(tl.int64)[:, None] * dim + column[None, :]
    tl.store(out, normalised.to(out_ptr.dtype.element_ty), mask=inside)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """``x / sqrt(mean(x²) + eps) * weight``, in float32, rounded to the dtype of x; contiguous."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    rows = rows_of(x)
    if rows.num_rows:
        row_tile, dim_tile, options = tile_of_rows("rms_norm", rows)
        _rms_norm[(triton.cdiv(rows.num_rows, row_tile),)](
            rows.tensor, weight, out, *rows[1:], eps,
            ROW_TILE=row_tile, DIM_TILE=dim_tile, **options,
        )  # fmt: skip
    return out


def _reference(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    x64 = x.double()
    return (x64 * (x64.square().mean(-1, keepdim=True) + eps).rsqrt() * weight).to(x.dtype)


def _case(
    tokens: int, heads: int, dim: int, dtype: torch.dtype = torch.bfloat16, *, ahead: bool = False
) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device).to(dtype)

        x = normal(tokens, (heads + 2) * dim)[:, dim : dim * (heads + 1)]  # heads between others
        x = x.reshape(tokens, heads, dim) if heads > 1 else x
        return {"x": x, "weight": normal(dim), "eps": 1e-6}

    name = str(dtype).removeprefix("torch.")
    return Case(f"{tokens}x{heads}x{dim}-{name}", make, dtypes=(name,), ahead=ahead)


KERNELS = (
    Kernel(
        "rms_norm",
        rms_norm,
        _reference,
        (
            _case(3, 1, 200, torch.float32),
            _case(5, 3, 64),
            _case(2, 1, 1000, torch.float16),
            _case(64, 1, 4096, ahead=True),
            _case(64, 32, 128, ahead=True),
        ),
    ),
)
