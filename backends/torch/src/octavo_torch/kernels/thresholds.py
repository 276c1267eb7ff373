"""Where top_k and top_p cut a row off: searches digit by digit, instead of a sort.

Both look for the smallest key up to which there is enough: the keys of top_k are logits in
descending order and each token counts 1, those of top_p are ``steps_of`` tokens, which count their
weights. A pass sums by the next four bits of the keys that begin with the digits found so far, in
as many programs as a row has splits; each program of the next pass adds these up and takes the
digit by itself. All sums are of integers, so that the cut is exact whatever the order.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from octavo_torch.kernels.integer_weights import (
    EXACT,
    fraction_of,
    largest_of,
    order_of,
    per_logit,
    steps_of,
    units_of,
    weight_of_steps,
)
from octavo_torch.kernels.row_tiles import RowTiles

__all__ = ["kept_weights", "thresholds"]

_KEY_PASSES, _STEP_PASSES = 8, 5  # digits of 32-bit keys, and of steps up to 26 * 2**14


@triton.jit
def _key_of(logit) -> Any:
    """uint32, 0 for the largest float32; infinities have their places."""
    return (order_of(logit) ^ 0x7FFFFFFF).to(tl.uint32, bitcast=True)


@triton.jit
def kept_weights(
    logit,  # [tokens]
    inside,  # [tokens]: False has weight 0
    bounds_ptr,  # i64[rows, 2]: the last key that top_k keeps, the smallest weight of top_p
    min_p_ptr,
    row,
    largest,
    steps_per_logit,
    NUM_BOUNDS: tl.constexpr,  # how many of the bounds hold
) -> tuple[Any, Any]:
    """(int64 weights of tokens that are kept, 0 of others; their steps)."""
    steps = steps_of(logit, largest, steps_per_logit)
    weight = weight_of_steps(steps).to(tl.int64)
    kept = inside & (weight >= units_of(tl.load(min_p_ptr + row)))
    if NUM_BOUNDS >= 1:
        kept &= _key_of(logit).to(tl.int64) <= tl.load(bounds_ptr + row * 2)
    if NUM_BOUNDS == 2:
        kept &= weight >= tl.load(bounds_ptr + row * 2 + 1)
    return tl.where(kept, weight, 0), steps


@triton.jit
def _found(
    states_ptr,  # i64[passes, rows, 2]: digits before the pass, what is still needed from them on
    sums_ptr,  # i64[passes, rows, splits, 16]
    limit_ptr,  # top_k or top_p
    row,
    rows,
    splits,
    step,  # passes that are done
    BY_WEIGHT: tl.constexpr,
    SPLITS_PAD: tl.constexpr,
) -> tuple[Any, Any]:
    """(digits found, what is needed of the keys that begin with these): int64 scalars."""
    digits = tl.full((), 0, tl.int64)
    needed = tl.full((), 0, tl.int64)
    if step > 0:
        split, digit = tl.arange(0, SPLITS_PAD), tl.arange(0, 16)
        last = (step - 1) * rows + row
        place = sums_ptr + (last * splits + split[:, None]) * 16 + digit[None, :]
        inside = (split < splits)[:, None] & (digit < 16)[None, :]
        sums = tl.sum(tl.load(place, mask=inside, other=0), axis=0)
        if step > 1:
            digits = tl.load(states_ptr + last * 2)
            needed = tl.load(states_ptr + last * 2 + 1)
        elif BY_WEIGHT:
            needed = tl.maximum(fraction_of(tl.sum(sums), units_of(tl.load(limit_ptr + row))), 1)
        else:
            needed = tl.load(limit_ptr + row).to(tl.int64)
        running = tl.cumsum(sums, axis=0)
        next_digit = tl.minimum(tl.sum((running < needed).to(tl.int32)), 15)
        needed -= tl.sum(tl.where(digit < next_digit, sums, 0))
        digits = digits * 16 + next_digit
    return digits, needed


@triton.jit
def _is_limited(temperature_ptr, limit_ptr, row, vocab_size, BY_WEIGHT: tl.constexpr) -> Any:
    """Whether the row is drawn at all, and top_k or top_p is on."""
    limit = tl.load(limit_ptr + row)
    drawn = tl.load(temperature_ptr + row) > 0.0
    return drawn & (limit < 1.0 if BY_WEIGHT else (limit > 0) & (limit < vocab_size))


@triton.jit(do_not_specialize=["step", "shift"])
def _sum_by_digit(
    logits_ptr,  # [rows, vocab], rows row_stride apart
    peaks_ptr,  # i64[rows, splits]
    temperature_ptr,
    min_p_ptr,
    limit_ptr,
    bounds_ptr,
    states_ptr,
    sums_ptr,
    vocab_size,
    row_stride,
    split_size,
    step,
    shift,
    BY_WEIGHT: tl.constexpr,
    TILE: tl.constexpr,
    SPLITS_PAD: tl.constexpr,
):
    row, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    rows, splits = tl.num_programs(0), tl.num_programs(1)
    if _is_limited(temperature_ptr, limit_ptr, row, vocab_size, BY_WEIGHT):
        digits, needed = _found(
            states_ptr, sums_ptr, limit_ptr, row, rows, splits, step, BY_WEIGHT, SPLITS_PAD
        )
        if split == 0:
            tl.store(states_ptr + (step * rows + row) * 2, digits)
            tl.store(states_ptr + (step * rows + row) * 2 + 1, needed)
        start = split * split_size
        end = tl.minimum(start + split_size, vocab_size)
        digit = tl.arange(0, 16)
        sums = tl.zeros((16,), tl.int64)
        if BY_WEIGHT:
            largest = largest_of(peaks_ptr + row * splits, splits, SPLITS_PAD)
            steps_per_logit = per_logit(tl.load(temperature_ptr + row))
        for first in range(start, end, TILE):
            token = first + tl.arange(0, TILE)
            inside = token < end
            logit = tl.load(logits_ptr + row * row_stride + token, mask=inside, other=0.0)
            logit = logit.to(tl.float32)
            if BY_WEIGHT:
                worth, steps = kept_weights(
                    logit, inside, bounds_ptr, min_p_ptr, row, largest, steps_per_logit, 1
                )
                key = steps.to(tl.uint32)
            else:
                worth = inside.to(tl.int64)
                key = _key_of(logit)
            begins = (key >> shift) >> 4 == digits.to(tl.uint32)
            own = tl.where(begins, (key >> shift) & 15, 16).to(tl.int32)
            sums += tl.sum(tl.where(own[:, None] == digit[None, :], worth[:, None], 0), axis=0)
        tl.store(sums_ptr + ((step * rows + row) * splits + split) * 16 + digit, sums)


@triton.jit(do_not_specialize=["step"])
def _set_bound(
    temperature_ptr,
    limit_ptr,
    bounds_ptr,
    states_ptr,
    sums_ptr,
    vocab_size,
    splits,
    step,
    BY_WEIGHT: tl.constexpr,
    SPLITS_PAD: tl.constexpr,
):
    row, rows = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    key, _ = _found(states_ptr, sums_ptr, limit_ptr, row, rows, splits, step, BY_WEIGHT, SPLITS_PAD)
    limited = _is_limited(temperature_ptr, limit_ptr, row, vocab_size, BY_WEIGHT)
    if BY_WEIGHT:
        bound = weight_of_steps(tl.minimum(key, 425984).to(tl.int32)).to(tl.int64)
        tl.store(bounds_ptr + row * 2 + 1, tl.where(limited, bound, 0))
    else:
        tl.store(bounds_ptr + row * 2, tl.where(limited, key, 0xFFFFFFFF))


def thresholds(
    logits: torch.Tensor,  # [rows, vocab]
    peaks: torch.Tensor,  # i64[rows, splits]: the largest of each split
    tiles: RowTiles,
    temperature: torch.Tensor,  # float32[rows]
    top_k: torch.Tensor,  # i32[rows]
    top_p: torch.Tensor,  # float32[rows]
    min_p: torch.Tensor,  # float32[rows]
) -> torch.Tensor:
    """i64[rows, 2]: the bounds that ``kept_weights`` goes by."""
    rows, vocab_size = logits.shape
    bounds = _integers(logits, rows, 2)
    for limit, passes, by_weight in ((top_k, _KEY_PASSES, False), (top_p, _STEP_PASSES, True)):
        states = _integers(logits, passes, rows, 2)
        sums = _integers(logits, passes, rows, tiles.splits, 16)
        options = {"BY_WEIGHT": by_weight, "SPLITS_PAD": tiles.splits_pad, **EXACT}
        for step in range(passes):
            _sum_by_digit[(rows, tiles.splits)](
                logits, peaks, temperature, min_p, limit, bounds, states, sums,
                vocab_size, logits.stride(0), tiles.split_size, step, 4 * (passes - 1 - step),
                TILE=tiles.digit_tile, num_warps=tiles.num_warps, **options,
            )  # fmt: skip
        _set_bound[(rows,)](
            temperature, limit, bounds, states, sums, vocab_size, tiles.splits, passes,
            num_warps=tiles.num_warps, **options,
        )  # fmt: skip
    return bounds


def _integers(like: torch.Tensor, *shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.int64, device=like.device)
