"""One right kernel and some wrong ones, which prove that the harness tells them apart."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

from octavo_torch.kernels.kernel import Case, Kernel

__all__ = ["FAULTS", "KERNELS"]


@triton.jit
def _scaled_product(
    x_ptr, y_ptr, out_ptr, rows, width,
    PRECISION: tl.constexpr, ROW_TILE: tl.constexpr, BLOCK: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROW_TILE + tl.arange(0, ROW_TILE)
    column = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < width)[None, :]
    square = (column < width)[:, None] & (column < width)[None, :]
    x = tl.load(x_ptr + row[:, None] * width + column[None, :], mask=inside, other=0.0)
    y = tl.load(y_ptr + column[:, None] * width + column[None, :], mask=square, other=0.0)
    product = tl.dot(x * 0.5, y, input_precision=PRECISION)
    if not MASKED:
        inside = inside | True
    tl.store(out_ptr + row[:, None] * width + column[None, :], product, mask=inside)


def _launch(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    masked: bool = True,
    precision: str = "ieee",
    tile: int = 16,
) -> torch.Tensor:
    rows, width = x.shape
    out = torch.empty_like(x)
    grid = (triton.cdiv(rows, tile), 1, 1)
    block = triton.next_power_of_2(max(width, 16))
    _scaled_product[grid](x, y, out, rows, width, precision, tile, block, masked, num_warps=4)
    return out


def _reference(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((x * 0.5).double() @ y.double()).to(x.dtype)


def _case(label: str, dtype: str, rows: int, width: int, *, ahead: bool = False) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        shapes = {"x": (rows, width), "y": (width, width)}
        return {
            name: (torch.randn(shape, generator=generator, device=device) / width**0.25).to(
                getattr(torch, dtype)
            )
            for name, shape in shapes.items()
        }

    return Case(
        label, make, dtypes=(dtype,), ahead=ahead, expects={"cuda": "matrix", "hip": "matrix"}
    )


_CASES = (
    _case("float32", "float32", 20, 16),
    _case("bfloat16-odd", "bfloat16", 33, 23),
    _case("float16", "float16", 16, 16),
)
_AHEAD = (_case("large", "bfloat16", 1 << 16, 64, ahead=True),)


def _writes_input(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    product = _launch(x, y)
    x.zero_()
    return product


def _leaves_rows(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    out[:-1] = _launch(x, y)[:-1]
    return out


def _dies(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    ctypes.string_at(0)
    return _launch(x, y)


@triton.jit
def _sum_of_earlier(x_ptr, out_ptr):
    program = tl.program_id(0)
    before = tl.load(out_ptr + program - 1, mask=program > 0, other=0.0)
    tl.store(out_ptr + program, before + tl.load(x_ptr + program))


def _counts_on_order(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(x.shape[0], dtype=x.dtype)
    _sum_of_earlier[(x.shape[0],)](x[:, 0].contiguous(), out)
    return out


def _ordered_reference(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x[:, 0].contiguous().cumsum(0)


def _mutant(name: str, launch: Callable[..., Any], reference: Any = _reference) -> Kernel:
    return Kernel(name, launch, reference, _CASES[:1])


# What the harness must say about each.
FAULTS = {
    "example_unmasked": "outside of every tensor",
    "example_tf32": "elements differ",
    "example_wrong": "elements differ",
    "example_writes_input": "writes to its arguments: x",
    "example_leaves_rows": "nan",
    "example_counts_on_order": "elements differ",
    "example_dies": "SIGSEGV",
    "example_raises": "ZeroDivisionError",
}

KERNELS = (
    Kernel("example", _launch, _reference, _CASES + _AHEAD),
    _mutant("example_unmasked", lambda x, y: _launch(x, y, masked=False)),
    _mutant("example_tf32", lambda x, y: _launch(x, y, precision="tf32")),
    _mutant("example_wrong", lambda x, y: _launch(x, y.t().contiguous())),
    _mutant("example_writes_input", _writes_input),
    _mutant("example_leaves_rows", _leaves_rows),
    _mutant("example_counts_on_order", _counts_on_order, _ordered_reference),
    _mutant("example_dies", _dies),
    _mutant("example_raises", lambda x, y: 1 // 0),
)
