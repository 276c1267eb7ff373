"""The likeliest token of each row, the first among equals, and whether the row can be sampled."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from octavo_torch.kernels.integer_weights import is_finite_peak, peak_of, row_peak, token_of
from octavo_torch.kernels.kernel import Case, Kernel
from octavo_torch.kernels.row_tiles import RowTiles, row_tiles

__all__ = ["KERNELS", "argmax", "row_peaks"]


@triton.jit
def _row_peaks(
    logits_ptr,  # [rows, vocab], rows row_stride apart
    peaks_ptr,  # i64[rows, splits]
    vocab_size,
    row_stride,
    split_tiles,
    TILE: tl.constexpr,
):
    row, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    start = split * split_tiles * TILE
    end = tl.minimum(start + split_tiles * TILE, vocab_size)
    peaks = tl.full((TILE,), -0x7FFFFFFFFFFFFFFF, tl.int64)
    for first in range(start, end, TILE):
        token = first + tl.arange(0, TILE)
        logit = tl.load(logits_ptr + row * row_stride + token, mask=token < end, other=0.0)
        peak = peak_of(logit.to(tl.float32), token)
        peaks = tl.maximum(peaks, tl.where(token < end, peak, -0x7FFFFFFFFFFFFFFF))
    tl.store(peaks_ptr + row * tl.num_programs(1) + split, tl.max(peaks, axis=0))


@triton.jit
def _argmax(peaks_ptr, ids_ptr, valid_ptr, splits, SPLITS_PAD: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    peak = row_peak(peaks_ptr + row * splits, splits, SPLITS_PAD)
    is_valid = is_finite_peak(peak)
    tl.store(ids_ptr + row, tl.where(is_valid, token_of(peak), 0))
    tl.store(valid_ptr + row, is_valid.to(tl.uint8))


def row_peaks(logits: torch.Tensor, tiles: RowTiles) -> torch.Tensor:
    """i64[rows, splits]: ``peak_of`` the likeliest token in each split of each row."""
    num_rows, vocab_size = logits.shape
    peaks = torch.empty((num_rows, tiles.splits), dtype=torch.int64, device=logits.device)
    _row_peaks[(num_rows, tiles.splits)](
        logits, peaks, vocab_size, logits.stride(0), tiles.split_tiles,
        TILE=tiles.tile, num_warps=tiles.num_warps,
    )  # fmt: skip
    return peaks


def argmax(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(token ids i32[rows], valid bool[rows]); id 0 where NaN, +inf or nothing but -inf."""
    tiles = row_tiles(logits)
    peaks = row_peaks(logits, tiles)
    ids = torch.empty(len(logits), dtype=torch.int32, device=logits.device)
    valid = torch.empty(len(logits), dtype=torch.uint8, device=logits.device)
    _argmax[(len(logits),)](
        peaks, ids, valid, tiles.splits,
        SPLITS_PAD=tiles.splits_pad, num_warps=1,
    )  # fmt: skip
    return ids, valid.view(torch.bool)


def _reference(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    largest = logits.float().amax(-1, keepdim=True)
    valid = largest[:, 0].isfinite()
    place = torch.arange(logits.shape[1]).expand(logits.shape)
    first = torch.where(logits == largest, place, logits.shape[1]).amin(-1)
    return torch.where(valid, first, 0).to(torch.int32), valid


def _case(
    rows: int, vocab_size: int, dtype: torch.dtype = torch.float32, *, ahead: bool = False
) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        logits = torch.randn((rows, vocab_size), generator=generator, device=device)
        logits[0] = logits[0].round()
        logits[1] = torch.where(torch.arange(vocab_size, device=device) % 3 == 2, 0.0, -0.0)
        logits[2, -1], logits[3, 1], logits[4] = float("nan"), float("inf"), -float("inf")
        logits[5, :-2] = -float("inf")
        return {"logits": logits.to(dtype)}

    return Case(f"{rows}x{vocab_size}-{str(dtype).removeprefix('torch.')}", make, ahead=ahead)


KERNELS = (
    Kernel(
        "argmax",
        argmax,
        _reference,
        (
            _case(8, 600),
            _case(6, 97, torch.bfloat16),
            _case(256, 151936, torch.bfloat16, ahead=True),
        ),
    ),
)
