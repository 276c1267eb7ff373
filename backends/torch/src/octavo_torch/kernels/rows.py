"""Rows of a tensor as kernels read them: heads of tokens may lie apart, features may not."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton

from octavo_torch.kernels.tuning import launch_options

__all__ = ["Rows", "rows_of", "tile_of_rows"]


class Rows(NamedTuple):
    """Where row r of ``tensor`` starts: at (r // heads) * token_stride + (r % heads) * head_stride.

    All in elements.
    """

    tensor: torch.Tensor
    num_rows: int
    dim: int
    heads: int
    token_stride: int
    head_stride: int


def rows_of(x: torch.Tensor) -> Rows:
    """The rows along the last axis; copied first if no such strides describe them."""
    dim = x.shape[-1]
    if x.ndim > 3 or x.ndim < 2 or x.stride(-1) != 1:
        x = x.reshape(-1, dim).contiguous()
    if x.ndim == 2:
        return Rows(x, x.shape[0], dim, 1, x.stride(0), 0)
    tokens, heads, _ = x.shape
    return Rows(x, tokens * heads, dim, heads, x.stride(0), x.stride(1))


def tile_of_rows(kernel: str, rows: Rows) -> tuple[int, int, dict[str, int]]:
    """(rows of a program, columns of its tile, launch options) for whole rows held in registers."""
    options = launch_options(kernel, rows.tensor.device, dim=rows.dim)
    return options.pop("row_tile"), triton.next_power_of_2(rows.dim), options
