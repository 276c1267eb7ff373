"""Log-probability and rank of a token in each row, and the likeliest tokens.

A row is split between programs; each gives its largest logit, its sum of exponentials, how many
logits are larger than the token's, and its own likeliest tokens. A program for each row joins them.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from octavo_torch.kernels.integer_weights import is_nan, logit_of, peak_of, token_of
from octavo_torch.kernels.kernel import Case, Kernel
from octavo_torch.kernels.row_tiles import row_tiles

__all__ = ["KERNELS", "MOST_TOP", "token_logprobs"]

MOST_TOP = 32
"""The kernels find so many of the likeliest tokens: each costs a look at the row."""


@triton.jit
def _survey(
    logits_ptr,  # [rows, vocab], rows row_stride apart
    tokens_ptr,  # i32[rows]
    stats_ptr,  # float32[rows, splits, 2]: largest, sum of exponentials below it
    larger_ptr,  # i32[rows, splits]
    peaks_ptr,  # i64[rows, splits, num_top]
    vocab_size,
    row_stride,
    split_size,
    num_top,
    TILE: tl.constexpr,
):
    row, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    place = row * tl.num_programs(1) + split
    logits_ptr += row * row_stride
    chosen = tl.load(logits_ptr + tl.load(tokens_ptr + row)).to(tl.float32)
    start = split * split_size
    end = tl.minimum(start + split_size, vocab_size)
    largest = tl.full((TILE,), -float("inf"), tl.float32)
    larger = tl.zeros((TILE,), tl.int32)
    for first in range(start, end, TILE):
        token = first + tl.arange(0, TILE)
        logit = tl.load(logits_ptr + token, mask=token < end, other=-float("inf")).to(tl.float32)
        largest = tl.where((logit > largest) | is_nan(logit), logit, largest)
        larger += (logit > chosen).to(tl.int32)
    has_nan = tl.max(is_nan(largest).to(tl.int32), axis=0) > 0
    highest = tl.where(has_nan, float("nan"), tl.max(largest, axis=0))
    total = tl.zeros((TILE,), tl.float32)
    base = tl.where(highest == -float("inf"), 0.0, highest)
    for first in range(start, end, TILE):
        token = first + tl.arange(0, TILE)
        logit = tl.load(logits_ptr + token, mask=token < end, other=-float("inf")).to(tl.float32)
        total += tl.exp(logit - base)
    tl.store(stats_ptr + place * 2, highest)
    tl.store(stats_ptr + place * 2 + 1, tl.sum(total, axis=0))
    tl.store(larger_ptr + place, tl.sum(larger, axis=0))
    last = tl.full((), 0x7FFFFFFFFFFFFFFF, tl.int64)
    for rank in range(num_top):
        peaks = tl.full((TILE,), -0x7FFFFFFFFFFFFFFF, tl.int64)
        for first in range(start, end, TILE):
            token = first + tl.arange(0, TILE)
            logit = tl.load(logits_ptr + token, mask=token < end, other=0.0).to(tl.float32)
            peak = peak_of(logit, token)
            peaks = tl.where((token < end) & (peak < last), tl.maximum(peaks, peak), peaks)
        last = tl.max(peaks, axis=0)
        tl.store(peaks_ptr + place * num_top + rank, last)


@triton.jit
def _join(
    logits_ptr,
    tokens_ptr,
    stats_ptr,
    larger_ptr,
    peaks_ptr,
    logprobs_ptr,  # float32[rows]
    ranks_ptr,  # i32[rows]
    top_ids_ptr,  # i32[rows, num_top]
    top_logprobs_ptr,  # float32[rows, num_top]
    row_stride,
    splits,
    num_top,
    SPLITS_PAD: tl.constexpr,
    PEAKS_PAD: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, SPLITS_PAD)
    inside = split < splits
    place = row * splits + split
    highest = tl.load(stats_ptr + place * 2, mask=inside, other=-float("inf"))
    total = tl.load(stats_ptr + place * 2 + 1, mask=inside, other=0.0)
    largest = tl.max(highest, axis=0)
    faded = tl.where(highest > -float("inf"), total * tl.exp(highest - largest), 0.0)
    has_nan = tl.max(is_nan(highest).to(tl.int32), axis=0) > 0
    normaliser = largest + tl.log(tl.sum(faded, axis=0))
    normaliser = tl.where(has_nan | (largest == -float("inf")), float("nan"), normaliser)
    chosen = tl.load(logits_ptr + row * row_stride + tl.load(tokens_ptr + row)).to(tl.float32)
    tl.store(logprobs_ptr + row, chosen - normaliser)
    larger = tl.load(larger_ptr + place, mask=inside, other=0)
    tl.store(ranks_ptr + row, 1 + tl.sum(larger, axis=0))
    each = tl.arange(0, PEAKS_PAD)
    peaks_ptr += row * splits * num_top
    lowest = -0x7FFFFFFFFFFFFFFF
    peaks = tl.load(peaks_ptr + each, mask=each < splits * num_top, other=lowest)
    for rank in range(num_top):
        peak = tl.max(peaks, axis=0)
        peaks = tl.where(peaks == peak, lowest, peaks)
        tl.store(top_ids_ptr + row * num_top + rank, token_of(peak))
        logprob = logit_of((peak >> 32).to(tl.int32)) - normaliser
        tl.store(top_logprobs_ptr + row * num_top + rank, logprob)


def token_logprobs(
    logits: torch.Tensor,  # [rows, vocab]
    token_ids: torch.Tensor,  # i32[rows]
    num_top: int,  # 0 to MOST_TOP, at most vocab
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(logprobs float32[rows], ranks i32[rows], top ids i32[rows, k], their logprobs float32).

    A rank is 1 and the number of larger logits; of equal logits the smaller id comes first. A row
    with a NaN or +inf has no log-probabilities: they are NaN.
    """
    rows, vocab_size = logits.shape
    tiles = row_tiles(logits)

    def empty(dtype: torch.dtype, *shape: int) -> torch.Tensor:
        return torch.empty((rows, *shape), dtype=dtype, device=logits.device)

    stats = empty(torch.float32, tiles.splits, 2)
    larger = empty(torch.int32, tiles.splits)
    peaks = empty(torch.int64, tiles.splits, num_top)
    _survey[(rows, tiles.splits)](
        logits, token_ids, stats, larger, peaks,
        vocab_size, logits.stride(0), tiles.split_size, num_top,
        TILE=tiles.tile, num_warps=tiles.num_warps,
    )  # fmt: skip
    results = (
        empty(torch.float32),
        empty(torch.int32),
        empty(torch.int32, num_top),
        empty(torch.float32, num_top),
    )
    peaks_pad = tiles.splits_pad * triton.next_power_of_2(max(1, num_top))
    _join[(rows,)](
        logits, token_ids, stats, larger, peaks, *results, logits.stride(0), tiles.splits, num_top,
        SPLITS_PAD=tiles.splits_pad, PEAKS_PAD=peaks_pad, num_warps=tiles.num_warps,
    )  # fmt: skip
    return results


def _reference(
    logits: torch.Tensor, token_ids: torch.Tensor, num_top: int
) -> tuple[torch.Tensor, ...]:
    logprobs = logits.double().log_softmax(-1)
    chosen = token_ids.long()[:, None]
    ranks = 1 + (logits > logits.gather(1, chosen)).sum(-1)
    order = logits.float().sort(dim=-1, descending=True, stable=True).indices[:, :num_top]
    own = logprobs.gather(1, chosen)[:, 0]
    return own.float(), ranks.int(), order.int(), logprobs.gather(1, order).float()


def _case(
    rows: int,
    vocab_size: int,
    num_top: int,
    dtype: torch.dtype = torch.float32,
    *,
    ahead: bool = False,
) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        logits = 3 * torch.randn((rows, vocab_size), generator=generator, device=device)
        logits[0] = logits[0].round()
        logits[1, 3:] = -float("inf")
        token_ids = torch.randint(vocab_size, (rows,), generator=generator, device=device)
        return {
            "logits": logits.to(dtype),
            "token_ids": token_ids.to(torch.int32),
            "num_top": num_top,
        }

    name = f"{rows}x{vocab_size}-{num_top}-{str(dtype).removeprefix('torch.')}"
    return Case(name, make, dtypes=("float32",), ahead=ahead)


KERNELS = (
    Kernel(
        "token_logprobs",
        token_logprobs,
        _reference,
        (
            _case(4, 600, 3),
            _case(3, 300, 0, torch.bfloat16),
            _case(8, 151936, 20, ahead=True),
        ),
    ),
)
