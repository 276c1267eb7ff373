"""A token of each row, drawn with the host's uniform: exactly the core's sampler's.

The rules stand in ``octavo.ops.sampling``; ``integer_weights`` says why results are equal. Here
temperature and min_p become weights, ``thresholds`` finds what top_k and top_p keep, and the draw
takes two steps: sums of weights by tile, then the place within the one tile it falls into.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

from octavo_torch.kernels.argmax import row_peaks
from octavo_torch.kernels.integer_weights import (
    EXACT,
    fraction_of,
    is_finite_peak,
    largest_of,
    logit_of,
    per_logit,
    row_peak,
    token_of,
    units_of,
)
from octavo_torch.kernels.kernel import Case, Kernel
from octavo_torch.kernels.row_tiles import row_tiles
from octavo_torch.kernels.thresholds import kept_weights, thresholds

__all__ = ["KERNELS", "draw"]


@triton.jit
def _sum_tiles(
    logits_ptr,  # [rows, vocab], rows row_stride apart
    peaks_ptr,  # i64[rows, splits]
    temperature_ptr,
    min_p_ptr,
    bounds_ptr,
    sums_ptr,  # i64[rows, tiles]
    vocab_size,
    row_stride,
    tiles,
    split_tiles,
    NUM_BOUNDS: tl.constexpr,
    TILE: tl.constexpr,
    SPLITS_PAD: tl.constexpr,
):
    row, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    largest = largest_of(peaks_ptr + row * tl.num_programs(1), tl.num_programs(1), SPLITS_PAD)
    steps_per_logit = per_logit(tl.load(temperature_ptr + row))
    start = split * split_tiles
    for tile in range(start, tl.minimum(start + split_tiles, tiles)):
        token = tile * TILE + tl.arange(0, TILE)
        inside = token < vocab_size
        logit = tl.load(logits_ptr + row * row_stride + token, mask=inside, other=0.0)
        weight, _ = kept_weights(
            logit.to(tl.float32), inside, bounds_ptr, min_p_ptr, row,
            largest, steps_per_logit, NUM_BOUNDS,
        )  # fmt: skip
        tl.store(sums_ptr + row * tiles + tile, tl.sum(weight, axis=0))


@triton.jit
def _pick(
    logits_ptr,
    peaks_ptr,
    temperature_ptr,
    min_p_ptr,
    uniform_ptr,
    bounds_ptr,
    sums_ptr,
    ids_ptr,  # i32[rows]
    valid_ptr,  # u8[rows]
    vocab_size,
    row_stride,
    tiles,
    splits,
    NUM_BOUNDS: tl.constexpr,
    TILE: tl.constexpr,
    TILES_PAD: tl.constexpr,
    SPLITS_PAD: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    peak = row_peak(peaks_ptr + row * splits, splits, SPLITS_PAD)
    temperature = tl.load(temperature_ptr + row)
    tile = tl.arange(0, TILES_PAD)
    sums = tl.load(sums_ptr + row * tiles + tile, mask=tile < tiles, other=0)
    target = fraction_of(tl.sum(sums, axis=0), units_of(tl.load(uniform_ptr + row)))
    found = tl.sum((tl.cumsum(sums, axis=0) <= target).to(tl.int32), axis=0)
    target -= tl.sum(tl.where(tile < found, sums, 0), axis=0)
    token = found * TILE + tl.arange(0, TILE)
    inside = token < vocab_size
    logit = tl.load(logits_ptr + row * row_stride + token, mask=inside, other=0.0)
    largest = logit_of((peak >> 32).to(tl.int32))
    weight, _ = kept_weights(
        logit.to(tl.float32), inside, bounds_ptr, min_p_ptr, row,
        largest, per_logit(temperature), NUM_BOUNDS,
    )  # fmt: skip
    running = tl.cumsum(weight, axis=0)
    drawn = found * TILE + tl.sum((running <= target).to(tl.int32), axis=0)
    token_id = tl.where(temperature > 0.0, drawn, token_of(peak))
    is_valid = is_finite_peak(peak)
    tl.store(ids_ptr + row, tl.where(is_valid, token_id, 0))
    tl.store(valid_ptr + row, is_valid.to(tl.uint8))


def draw(
    logits: torch.Tensor,  # [rows, vocab]
    temperature: torch.Tensor,  # float32[rows]; 0: the likeliest
    top_k: torch.Tensor,  # i32[rows]; 0: off
    top_p: torch.Tensor,  # float32[rows]; 1: off
    min_p: torch.Tensor,  # float32[rows]; 0: off
    uniform: torch.Tensor,  # float32[rows], multiples of 2**-24
    *,
    truncated: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(token ids i32[rows], valid bool[rows]); top_k and top_p are read only if ``truncated``."""
    rows, vocab_size = logits.shape
    tiles = row_tiles(logits)
    peaks = row_peaks(logits, tiles)
    bounds = peaks
    if truncated:
        bounds = thresholds(logits, peaks, tiles, temperature, top_k, top_p, min_p)
    sums = torch.empty((rows, tiles.tiles), dtype=torch.int64, device=logits.device)
    ids = torch.empty(rows, dtype=torch.int32, device=logits.device)
    valid = torch.empty(rows, dtype=torch.uint8, device=logits.device)
    options = {"NUM_BOUNDS": 2 * truncated, "TILE": tiles.tile, "SPLITS_PAD": tiles.splits_pad}
    _sum_tiles[(rows, tiles.splits)](
        logits, peaks, temperature, min_p, bounds, sums,
        vocab_size, logits.stride(0), tiles.tiles, tiles.split_tiles,
        num_warps=tiles.num_warps, **options, **EXACT,
    )  # fmt: skip
    _pick[(rows,)](
        logits, peaks, temperature, min_p, uniform, bounds, sums, ids, valid,
        vocab_size, logits.stride(0), tiles.tiles, tiles.splits,
        TILES_PAD=triton.next_power_of_2(max(2, tiles.tiles)),
        num_warps=tiles.num_warps, **options, **EXACT,
    )  # fmt: skip
    return ids, valid.view(torch.bool)


def _reference(
    logits: torch.Tensor, *limits: torch.Tensor, truncated: bool, **named: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Row by row with a sort; weights by the formula in float64, integers as wide as they get."""
    del truncated
    names = ("temperature", "top_k", "top_p", "min_p", "uniform")
    columns = dict(zip(names, limits, strict=False)) | named
    settings = zip(*(columns[name].tolist() for name in names), strict=True)
    drawn = [_drawn(row.float(), *each) for row, each in zip(logits, settings, strict=True)]
    ids, valid = zip(*drawn, strict=True)
    return torch.tensor(ids, dtype=torch.int32), torch.tensor(valid)


def _drawn(
    logits: torch.Tensor, temperature: float, top_k: int, top_p: float, min_p: float, uniform: float
) -> tuple[int, bool]:
    largest = logits.amax()
    if not largest.isfinite():
        return 0, False
    if temperature == 0:
        return int((logits == largest).nonzero()[0]), True
    weights = _weights(logits, largest, temperature)
    weights = torch.where(weights >= _units(min_p), weights, 0)
    if 0 < top_k < len(logits):
        weights = torch.where(logits >= logits.sort(descending=True).values[top_k - 1], weights, 0)
    ordered = weights.sort(descending=True).values
    heavier = ordered.cumsum(0) - ordered
    lightest = ordered[heavier < max(1, int(weights.sum()) * _units(top_p) >> 24)][-1]
    weights = torch.where(weights >= lightest, weights, 0)
    target = int(weights.sum()) * _units(uniform) >> 24
    return int((weights.cumsum(0) > target).nonzero()[0]), True


def _weights(logits: torch.Tensor, largest: torch.Tensor, temperature: float) -> torch.Tensor:
    per_unit = torch.full((), 23637.11554992477) / torch.tensor(temperature)
    steps = ((largest - logits) * per_unit).clamp(max=425984.0).round().long()
    fraction = steps & 16383
    slope = torch.full_like(fraction, 946)
    for coefficient in (7076, 31444, 90849):
        slope = coefficient - ((fraction * slope) >> 14)
    return (((33554432 - ((fraction * slope) >> 6)) >> (steps >> 14)) + 1) >> 1


def _units(fraction: float) -> int:
    return math.ceil(fraction * (1 << 24))


def _case(
    rows: int,
    vocab_size: int,
    dtype: torch.dtype = torch.float32,
    *,
    truncated: bool = True,
    ahead: bool = False,
) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        def uniform() -> torch.Tensor:
            parts = torch.randint(1 << 24, (rows,), generator=generator, device=device)
            return parts.float() / (1 << 24)

        def mostly(values: torch.Tensor, off: float) -> torch.Tensor:
            return torch.where(uniform() < 0.3, off, values)

        logits = 3 * torch.randn((rows, vocab_size), generator=generator, device=device)
        logits[::3] = logits[::3].round()  # many equals
        logits[1::4] -= 5000  # negative ones
        logits[2, ::2], logits[-1, 7] = -float("inf"), float("nan")
        top_k = mostly(1 + uniform() ** 3 * vocab_size, 0).to(torch.int32)
        top_p = mostly(uniform(), 1)
        return {
            "logits": logits.to(dtype),
            "temperature": mostly(3 * uniform() + 0.05, 0 if rows > 1 else 1),
            "top_k": top_k if truncated else torch.zeros_like(top_k),
            "top_p": top_p if truncated else torch.ones_like(top_p),
            "min_p": mostly(uniform() ** 4, 0),
            "uniform": uniform(),
            "truncated": truncated,
        }

    name = f"{rows}x{vocab_size}-{str(dtype).removeprefix('torch.')}"
    return Case(name + ("-truncated" if truncated else ""), make, ahead=ahead, exact=True)


KERNELS = (
    Kernel(
        "draw",
        draw,
        _reference,
        (
            _case(10, 600),
            _case(3, 1400, torch.bfloat16),
            _case(8, 600, truncated=False),
            _case(256, 151936, ahead=True),
        ),
    ),
)
