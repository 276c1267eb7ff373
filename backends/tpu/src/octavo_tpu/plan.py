"""Attention metadata of one KV group for one step: the portable plan, and tiles of queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo.api import step_tree

if TYPE_CHECKING:
    from octavo.api import GroupBatch, StepBatch

__all__ = ["XlaPlan", "make_plan"]

Int32 = NDArray[np.int32]
_LARGEST_TILE = 32


@step_tree
@dataclass(frozen=True)
class XlaPlan:
    """As ``octavo.api.AttentionPlan``, and tiles: some tokens of one sequence each."""

    block_table: Any  # i32[seqs, blocks]
    slots: Any  # i32[tokens]: block * block_size + offset; 0 for padding
    token_seqs: Any  # i32[tokens]
    positions: Any  # i32[tokens]
    query_start: Any  # i32[seqs + 1]
    seq_lens: Any  # i32[seqs]; 0 for padding
    tile_seqs: Any  # i32[tiles]
    tile_tokens: Any  # i32[tiles, tile]: which token a row is; 0 where it is none
    tile_positions: Any  # i32[tiles, tile]: its position, -1 where it is none
    token_rows: Any  # i32[tokens]: tile * tile size + row


def make_plan(
    batch: StepBatch, group: GroupBatch, num_columns: int, put: Callable[[Any], Any]
) -> XlaPlan:
    """For a host batch; its block table gets ``num_columns``, and ``put`` moves each array."""
    given = np.asarray(group.block_table)
    table = np.zeros((len(given), num_columns), np.int32)
    table[:, : given.shape[1]] = given
    seqs, tokens, positions, rows = _tiles(batch)
    return XlaPlan(
        block_table=put(table),
        slots=put(group.slots),
        token_seqs=put(batch.token_seqs),
        positions=put(batch.positions),
        query_start=put(batch.query_start),
        seq_lens=put(batch.seq_lens),
        tile_seqs=put(seqs),
        tile_tokens=put(tokens),
        tile_positions=put(positions),
        token_rows=put(rows),
    )


def _tiles(batch: StepBatch) -> tuple[Int32, Int32, Int32, Int32]:
    """Tiles of a size, and of a number, that follow from the batch's shape alone."""
    starts = np.asarray(batch.query_start)
    num_tokens, num_seqs = len(batch.token_ids), len(batch.seq_lens)
    size = max(1, min(_LARGEST_TILE, num_tokens // max(num_seqs, 1)))
    num_tiles = num_tokens if size == 1 else num_tokens // size + num_seqs
    counts = -(-np.diff(starts) // size)  # tiles of each sequence
    first_tile = np.concatenate([[0], counts.cumsum()])
    seqs = np.zeros(num_tiles, np.int32)
    num_used = int(first_tile[-1])
    seqs[:num_used] = np.repeat(np.arange(num_seqs, dtype=np.int32), counts)
    tokens = np.zeros((num_tiles, size), np.int32)
    positions = np.full((num_tiles, size), -1, np.int32)
    rows = np.zeros(num_tokens, np.int32)
    num_real = int(starts[-1])
    token = np.arange(num_real, dtype=np.int32)
    seq = np.asarray(batch.token_seqs)[:num_real]
    place = token - starts[seq]
    row = (first_tile[seq] + place // size) * size + place % size
    rows[:num_real] = row
    tokens.reshape(-1)[row] = token
    positions.reshape(-1)[row] = np.asarray(batch.positions)[:num_real]
    return seqs, tokens, positions, rows
