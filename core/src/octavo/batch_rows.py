"""Persistent host arrays, one row per running request, from which each step's batch is gathered.

A decode step of 256 requests must not cost 256 Python loops: tokens, lengths and block tables
live in NumPy arrays that change by small deltas, and ``build`` is array operations only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from octavo.batch import GroupBatch, StepBatch

__all__ = ["BatchRows"]

Int32 = NDArray[np.int32]
TableUpdate = tuple[int, int, int, Sequence[int]]
"""(row, group, start index, block ids)"""


class BatchRows:
    """Token ids, lengths and block tables of the running requests, addressed by row."""

    def __init__(self, max_rows: int, num_groups: int, block_size: int) -> None:
        self._block_size = block_size
        self._token_ids = np.zeros((max_rows, 64), np.int32)
        self._tables = [np.zeros((max_rows, 8), np.int32) for _ in range(num_groups)]
        self._num_free_columns = 0  # behind the longest row; 0 forces a look
        self.prompt_lens = np.zeros(max_rows, np.int32)
        self.lengths = np.zeros(max_rows, np.int32)  # tokens known so far: prompt and output

    def set_row(
        self, row: int, prompt_token_ids: Sequence[int], output_token_ids: Sequence[int]
    ) -> None:
        """Take over ``row`` for a request that starts or resumes."""
        num_prompt_tokens = len(prompt_token_ids)
        num_tokens = num_prompt_tokens + len(output_token_ids)
        self._token_ids = _with_columns(self._token_ids, num_tokens + 1)
        self._token_ids[row, :num_prompt_tokens] = prompt_token_ids
        if output_token_ids:
            self._token_ids[row, num_prompt_tokens:num_tokens] = output_token_ids
        self._num_free_columns = 0
        self.prompt_lens[row] = num_prompt_tokens
        self.lengths[row] = num_tokens

    def append(self, rows: Int32, token_ids: Int32) -> None:
        """One sampled token for each of ``rows`` (all different)."""
        positions = self.lengths[rows]
        if self._num_free_columns <= 0 and len(rows):
            self._token_ids = _with_columns(self._token_ids, int(positions.max()) + 1)
            self._num_free_columns = self._token_ids.shape[1] - int(self.lengths.max())
        self._num_free_columns -= 1
        self._token_ids[rows, positions] = token_ids
        self.lengths[rows] = positions + 1

    def reserve(self, num_columns: int) -> None:
        """Have room for tokens at so many positions, known or not."""
        if num_columns > self._token_ids.shape[1]:
            self._token_ids = _with_columns(self._token_ids, num_columns)
            self._num_free_columns = 0

    def update_tables(self, updates: Iterable[TableUpdate]) -> None:
        """Apply the scheduler's changes of block tables."""
        tables = self._tables
        for row, group, start, blocks in updates:
            stop = start + len(blocks)
            if stop > tables[group].shape[1]:
                tables[group] = _with_columns(tables[group], stop)
            if len(blocks) == 1:
                tables[group][row, start] = blocks[0]
            else:
                tables[group][row, start:stop] = blocks

    def prompt_targets(self, row: int, start: int, num_tokens: int) -> Int32:
        """The tokens that follow positions [start, start + num_tokens), within the prompt."""
        stop = min(start + num_tokens + 1, int(self.prompt_lens[row]))
        return self._token_ids[row, start + 1 : stop].copy()

    def build(self, rows: Int32, starts: Int32, counts: Int32, logits_rows: Int32) -> StepBatch:
        """The batch in which ``rows[i]`` computes ``counts[i]`` tokens from position ``starts[i]``.

        ``logits_rows`` are indices of flattened tokens.
        """
        num_seqs = len(rows)
        query_start = np.zeros(num_seqs + 1, np.int32)
        np.cumsum(counts, out=query_start[1:])
        seq_lens = starts + counts
        if query_start[-1] == num_seqs:  # decodes only: a token is a sequence
            token_seqs = np.arange(num_seqs, dtype=np.int32)
            token_rows, positions = rows, starts
        else:
            token_seqs = np.repeat(np.arange(num_seqs, dtype=np.int32), counts)
            token_rows = rows[token_seqs]
            within = np.arange(len(token_seqs), dtype=np.int32) - query_start[token_seqs]
            positions = starts[token_seqs] + within
        return StepBatch(
            token_ids=self._token_ids[token_rows, positions],
            positions=positions,
            token_seqs=token_seqs,
            query_start=query_start,
            seq_lens=seq_lens,
            context_lens=np.maximum(positions + 1, self.prompt_lens[token_rows]),
            logits_rows=logits_rows,
            groups=self._group_batches(rows, token_rows, positions, int(seq_lens.max())),
        )

    def _group_batches(
        self, rows: Int32, token_rows: Int32, positions: Int32, max_len: int
    ) -> tuple[GroupBatch, ...]:
        block_index, offset = np.divmod(positions, np.int32(self._block_size))
        num_blocks = -(-max_len // self._block_size)
        return tuple(
            GroupBatch(
                block_table=table[rows, :num_blocks],
                slots=table[token_rows, block_index] * np.int32(self._block_size) + offset,
            )
            for table in self._tables
        )


def _with_columns(array: Int32, num_columns: int) -> Int32:
    """``array`` with at least ``num_columns`` columns, doubling so that growth is amortised."""
    if num_columns <= array.shape[1]:
        return array
    grown = np.zeros((array.shape[0], max(num_columns, 2 * array.shape[1])), np.int32)
    grown[:, : array.shape[1]] = array
    return grown
