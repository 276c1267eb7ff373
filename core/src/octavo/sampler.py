"""The host side of sampling: one row of settings per running request, gathered once a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from octavo.draws import Draws
from octavo.ops.arrays import Array
from octavo.ops.protocol import SamplingBatch
from octavo.philox import uniforms
from octavo.sampler_row import RowAdjustments

if TYPE_CHECKING:
    from octavo.sampling_params import SamplingParams

__all__ = ["SamplerRows"]

Int32 = NDArray[np.int32]
Mask = NDArray[np.bool_]

_UINT64_MASK = 2**64 - 1
_NO_IDS = np.zeros(0, np.int32)
_NO_VALUES = np.zeros(0, np.float32)
# Rows of the table of floats.
_TEMPERATURE, _TOP_P, _MIN_P, _REPETITION, _PRESENCE, _FREQUENCY = range(6)
# Rows of the table of integers.
_TOP_K, _SAMPLE_INDEX, _NUM_LOGPROBS = range(3)


@dataclass(frozen=True)
class _PlainRows:
    """Rows whose logits nothing touches: from step to step their draws change alone."""

    rows: bytes
    batch: SamplingBatch
    draws: Draws

    def at(self, positions: Int32) -> SamplingBatch:
        if self.batch.all_greedy:
            return self.batch
        return dataclasses.replace(self.batch, uniform=self.draws.at(positions))


class SamplerRows:
    """Settings and progress of up to ``max_rows`` requests; a step costs a few array operations.

    A draw is keyed by (seed, 0, sample, position) if the request has a seed of its own, so that it
    is the same in any batch, process and under any request id; else by the engine's seed and the
    request key.
    """

    def __init__(self, max_rows: int, vocab_size: int, engine_seed: int) -> None:
        self._vocab_size = vocab_size
        self._engine_seed = engine_seed
        self._floats = np.zeros((6, max_rows), np.float32)
        self._integers = np.zeros((3, max_rows), np.int32)
        self._keys = np.zeros((2, max_rows), np.uint64)  # seed, request key
        self._adjusts = np.zeros(max_rows, np.bool_)  # something touches the row's logits now
        self._follows = np.zeros(max_rows, np.bool_)  # something depends on the row's output
        self._adjustments: dict[int, RowAdjustments] = {}
        self._plain: _PlainRows | None = None  # the last ones, until a row is set

    def set_row(
        self,
        row: int,
        params: SamplingParams,
        prompt_token_ids: Sequence[int],
        output_token_ids: Sequence[int],
        *,
        request_key: int,
        sample_index: int,
        eos_token_ids: frozenset[int],
        bad_words_token_ids: Sequence[Sequence[int]] = (),
    ) -> None:
        """Take over ``row`` for a request that starts or resumes."""
        logprobs = -1 if params.logprobs is None else params.logprobs
        num_logprobs = self._vocab_size if params.logprobs == -1 else logprobs
        self._floats[:, row] = (
            params.temperature,
            params.top_p,
            params.min_p,
            params.repetition_penalty,
            params.presence_penalty,
            params.frequency_penalty,
        )
        top_k = 0 if params.top_k >= self._vocab_size else params.top_k
        self._integers[:, row] = (top_k, sample_index, num_logprobs)
        key = (self._engine_seed, request_key) if params.seed is None else (params.seed, 0)
        self._keys[:, row] = [number & _UINT64_MASK for number in key]
        adjustments = RowAdjustments(
            params,
            prompt_token_ids,
            output_token_ids,
            eos_token_ids,
            bad_words_token_ids,
            self._vocab_size,
        )
        self._adjustments[row] = adjustments
        self._note(row, adjustments)

    def clear_row(self, row: int) -> None:
        """The request of ``row`` is gone; the row may be set again."""
        self._plain = None
        self._adjustments.pop(row, None)
        self._adjusts[row] = self._follows[row] = False

    def needs_tokens(self, rows: Int32) -> bool:
        """Whether what is sampled next for one of ``rows`` depends on its latest token."""
        return bool(self._follows[rows].any())

    def record(self, rows: Int32, token_ids: Int32) -> None:
        """One new token for each of ``rows``, which must not repeat."""
        for i in self._follows[rows].nonzero()[0].tolist():
            row = int(rows[i])
            adjustments = self._adjustments[row]
            adjustments.append(int(token_ids[i]))
            self._note(row, adjustments)

    def build(
        self,
        rows: Int32,
        positions: Int32,
        mask: Mask | None = None,
        sample_indices: Int32 | None = None,
    ) -> SamplingBatch:
        """What to sample for ``rows``, whose new tokens will stand at ``positions``.

        A row may repeat, with a sample index for each place. ``mask`` is bool[places, vocab], True
        = allowed; it must not be used afterwards. Rows whose logits nothing touches get the arrays
        that they got before, but for their draws; greedy ones get the very object.
        """
        known = self._plain if mask is None and sample_indices is None else None
        if known is not None and known.rows == rows.tobytes():
            return known.at(positions)
        floats: Array = self._floats[:, rows]
        integers: Array = self._integers[:, rows]
        all_greedy = not floats[_TEMPERATURE].any()
        adjustments = {
            i: self._adjustments[int(rows[i])] for i in self._adjusts[rows].nonzero()[0].tolist()
        }
        mask = self._restricted(mask, len(rows), adjustments)
        seen_rows, seen_ids, seen_counts = _gather_seen(adjustments)
        bias_rows, bias_ids, bias_values = _gather_bias(adjustments)
        batch = SamplingBatch(
            temperature=floats[_TEMPERATURE],
            top_k=integers[_TOP_K],
            top_p=floats[_TOP_P],
            min_p=floats[_MIN_P],
            uniform=self._uniforms(rows, positions, sample_indices, all_greedy=all_greedy),
            repetition_penalty=floats[_REPETITION],
            presence_penalty=floats[_PRESENCE],
            frequency_penalty=floats[_FREQUENCY],
            seen_rows=seen_rows,
            seen_ids=seen_ids,
            seen_counts=seen_counts,
            bias_rows=bias_rows,
            bias_ids=bias_ids,
            bias_values=bias_values,
            mask=mask,
            num_logprobs=int(integers[_NUM_LOGPROBS].max(initial=-1)),
            all_greedy=all_greedy,
            plain=not adjustments and mask is None,
            truncated=not all_greedy and bool(integers[_TOP_K].any() or (floats[_TOP_P] < 1).any()),
        )
        self._plain = None
        if batch.plain and sample_indices is None:
            seeds, request_keys = self._keys[:, rows]
            draws = Draws(seeds, request_keys, integers[_SAMPLE_INDEX])
            self._plain = _PlainRows(rows.tobytes(), batch, draws)
        return batch

    def _note(self, row: int, adjustments: RowAdjustments) -> None:
        self._plain = None
        self._adjusts[row] = adjustments.adjusts
        self._follows[row] = adjustments.follows

    def _uniforms(
        self, rows: Int32, positions: Int32, sample_indices: Int32 | None, *, all_greedy: bool
    ) -> Array:
        if all_greedy:
            return np.zeros(len(rows), np.float32)
        if sample_indices is None:
            sample_indices = self._integers[_SAMPLE_INDEX, rows]
        seeds, request_keys = self._keys[:, rows]
        return uniforms(seeds, request_keys, sample_indices, positions)

    def _restricted(
        self, mask: Mask | None, num_rows: int, adjustments: dict[int, RowAdjustments]
    ) -> Mask | None:
        """bool[rows, vocab] with allowed_token_ids, or None if no row restricts its tokens."""
        restricting = [(i, a.allowed) for i, a in adjustments.items() if a.allowed is not None]
        if mask is None and restricting:
            mask = np.ones((num_rows, self._vocab_size), np.bool_)
        for i, allowed in restricting:
            cast("Mask", mask)[i] &= allowed
        return mask


def _gather_seen(adjustments: dict[int, RowAdjustments]) -> tuple[Array, Array, Array]:
    seen = [(i, a.seen) for i, a in adjustments.items() if a.seen is not None]
    if not seen:
        return _NO_IDS, _NO_IDS, _NO_IDS
    ids = [tokens.ids for _, tokens in seen]
    return (
        _repeated([i for i, _ in seen], ids),
        np.concatenate(ids),
        np.concatenate([tokens.counts for _, tokens in seen]),
    )


def _gather_bias(
    adjustments: dict[int, RowAdjustments],
) -> tuple[Array, Array, Array]:
    biases = [(i, a.bias) for i, a in adjustments.items() if len(a.bias)]
    if not biases:
        return _NO_IDS, _NO_IDS, _NO_VALUES
    ids = [bias.ids for _, bias in biases]
    return (
        _repeated([i for i, _ in biases], ids),
        np.concatenate(ids),
        np.concatenate([bias.values for _, bias in biases]),
    )


def _repeated(rows: Sequence[int], ids: Sequence[Int32]) -> Int32:
    """Each row once for each of its ids."""
    return np.repeat(np.array(rows, np.int32), [len(row_ids) for row_ids in ids])
