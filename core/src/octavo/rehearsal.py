"""Steps of padding: what a step takes is measured and its shapes are compiled before anyone waits.

Their sequences read and write block 0 alone, which is padding's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo.batch import GroupBatch, StepBatch
from octavo.padding import SPARSE_SIZES
from octavo.sampler import SamplerRows
from octavo.sampling_params import SamplingParams

if TYPE_CHECKING:
    from octavo.cache_plan import CacheLimits
    from octavo.ops.protocol import Array, SamplingBatch
    from octavo.padding import Buckets
    from octavo.transfers import Transfers

__all__ = [
    "Fills",
    "StepShape",
    "largest_step",
    "padding_batch",
    "padding_sampling",
    "programs_of",
    "shapes_of",
]

_DRAWN = SamplingParams(temperature=1.0, top_p=0.95, top_k=50, min_p=0.01)
_GREEDY = SamplingParams(temperature=0.0)
_WANTED = tuple(product((0, *SPARSE_SIZES), (False, True)))


@dataclass(frozen=True)
class StepShape:
    """Sequences without a past, and tables with room for ``table_len`` tokens."""

    query_lens: tuple[int, ...]
    table_len: int
    is_drawn: bool = False
    """Tokens are drawn, by all that narrows a choice; else the likeliest are taken."""
    num_adjusted: int = 0
    """Single logits that are adjusted."""
    is_masked: bool = False
    """A row may have some tokens only."""
    num_logprobs: int = -1
    """See SamplingBatch."""


class Fills:
    """``CompiledStep.fill`` in all its shapes, as a step of any size may be behind any other."""

    def __init__(self, transfers: Transfers) -> None:
        self._transfers = transfers
        self._token_ids: dict[int, NDArray[np.int32]] = {}
        self._sampled: dict[int, Array] = {}

    def rehearse(
        self, fill: Callable[..., Any], token_ids: NDArray[np.int32], num_rows: int, sampled: Array
    ) -> None:
        """Behind a step with these tokens and ``sampled`` rows all that came, and it behind all."""
        self._token_ids[len(token_ids)] = token_ids
        self._sampled[num_rows] = sampled
        pairs = [
            (tokens, known)
            for size, tokens in self._token_ids.items()
            for rows, known in self._sampled.items()
            if size == len(token_ids) or rows == num_rows
        ]
        for tokens, known in pairs:
            placed, sources = self._transfers.put(tokens, np.zeros(len(tokens), np.int32))
            fill((), (), placed, known, sources)


def largest_step(limits: CacheLimits) -> StepShape:
    """As many tokens and as many rows to sample as a step may have."""
    num_seqs = min(limits.max_num_seqs, limits.max_num_batched_tokens)
    tokens = min(limits.max_num_batched_tokens, num_seqs * limits.max_model_len)
    share, rest = divmod(tokens, num_seqs)
    lengths = tuple(share + (index < rest) for index in range(num_seqs))
    return StepShape(lengths, limits.max_model_len, is_drawn=True)


def shapes_of(buckets: Buckets, limits: CacheLimits) -> Iterator[StepShape]:
    """Of all sizes that steps are padded to, those that can come about, the largest first."""
    for num_seqs in _sizes(buckets.decodes, limits.max_num_seqs):
        yield from _both((1,) * num_seqs, limits)
    for num_seqs in _sizes(buckets.seqs, limits.max_num_seqs):
        for num_tokens in _sizes(buckets.tokens, limits.max_num_batched_tokens):
            if num_tokens >= num_seqs:
                share, rest = divmod(num_tokens, num_seqs)
                yield from _both(tuple(share + (index < rest) for index in range(num_seqs)), limits)


def programs_of(buckets: Buckets, limits: CacheLimits, max_logprobs: int) -> Iterator[StepShape]:
    """As ``shapes_of``, and for each number of rows what sampling may be asked for besides.

    Of log-probabilities that is none, the token's alone, and as many as there may be: a backend
    gives more than were asked for where that saves a program. A step that a row needs an adjustment
    in has no shape of its own but for what is sampled.
    """
    shapes = list(shapes_of(buckets, limits))
    nums_logprobs = sorted({-1, 0, max_logprobs})
    yield from (shape for shape in shapes if not shape.is_drawn)
    yield from (shape for shape in shapes if shape.is_drawn)
    for shape in {_rows_of(shape, buckets): shape for shape in shapes}.values():
        for is_drawn, wanted, num_logprobs in product((False, True), _WANTED, nums_logprobs):
            yield StepShape(shape.query_lens, shape.table_len, is_drawn, *wanted, num_logprobs)


def _rows_of(shape: StepShape, buckets: Buckets) -> tuple[int, bool]:
    """What follows for the rows that are sampled: ``Buckets.of_step`` pads decodes otherwise."""
    num_seqs = len(shape.query_lens)
    return num_seqs, max(shape.query_lens) == 1 and num_seqs <= max(buckets.decodes, default=0)


def _sizes(buckets: Sequence[int], largest: int) -> Iterator[int]:
    """For each bucket that may be needed, the largest size that there is for it, falling."""
    needed = [size for size in buckets if size < largest]
    needed += buckets[len(needed) : len(needed) + 1]
    for size in reversed(needed):
        yield min(size, largest)


def _both(query_lens: tuple[int, ...], limits: CacheLimits) -> Iterator[StepShape]:
    for is_drawn in (False, True):
        yield StepShape(query_lens, limits.max_model_len, is_drawn)


def padding_batch(shape: StepShape, block_size: int, num_groups: int) -> StepBatch:
    """The shape's step on the host, in which the last token of each sequence is sampled."""
    lengths = np.array(shape.query_lens, np.int32)
    starts = np.concatenate([np.zeros(1, np.int32), lengths.cumsum(dtype=np.int32)])
    num_tokens = int(starts[-1])
    token_seqs = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    positions = np.arange(num_tokens, dtype=np.int32) - starts[token_seqs]
    blocks = -(-max(shape.table_len, *shape.query_lens) // block_size)
    group = GroupBatch(np.zeros((len(lengths), blocks), np.int32), np.zeros(num_tokens, np.int32))
    return StepBatch(
        token_ids=np.zeros(num_tokens, np.int32),
        positions=positions,
        token_seqs=token_seqs,
        query_start=starts,
        seq_lens=lengths,
        context_lens=positions + 1,
        logits_rows=starts[1:] - 1,
        groups=(group,) * num_groups,
    )


def padding_sampling(shape: StepShape, vocab_size: int) -> SamplingBatch:
    """What to sample for it: one token for each sequence."""
    num_rows = len(shape.query_lens)
    rows = SamplerRows(num_rows, vocab_size, 0)
    for row in range(num_rows):
        rows.set_row(
            row,
            _DRAWN if shape.is_drawn else _GREEDY,
            (),
            (),
            request_key=row,
            sample_index=0,
            eos_token_ids=frozenset(),
        )
    positions = np.array(shape.query_lens, np.int32)
    batch = rows.build(np.arange(num_rows, dtype=np.int32), positions)
    batch = replace(batch, num_logprobs=shape.num_logprobs)
    if not (shape.num_adjusted or shape.is_masked):
        return batch
    return replace(
        batch,
        bias_rows=np.zeros(shape.num_adjusted, np.int32),
        bias_ids=np.zeros(shape.num_adjusted, np.int32),
        bias_values=np.zeros(shape.num_adjusted, np.float32),
        mask=np.ones((num_rows, vocab_size), np.bool_) if shape.is_masked else None,
        plain=False,
    )
