"""What the attention kernels of one KV group need to know about a step: one int32 array.

::

    header | slots | query_start | seq_lens | block_table | items | splits

The kernels go over *tiles*: TILE_KEYS keys at fixed positions, so that what a token gets does not
depend on how the work is cut. An item is what one thread takes (for one KV head): some queries of
a sequence over all tiles that they see, or, for a *split* sequence, over some of its tiles. A split
sequence leaves a partial result for each query and tile, which ``attention_combine`` joins in the
order of tiles, exactly as a thread would have done that had taken them all.
kernels/attention_plan.h mirrors this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from octavo.api import GroupBatch, StepBatch

__all__ = ["TILE_KEYS", "NativePlan", "make_plan", "make_scratch"]

Int32 = NDArray[np.int32]

TILE_KEYS = 256
_HEADER = 20
_QUERIES_PER_ITEM = 64
_MAX_SPLIT_QUERIES = 8  # with more, the queries are work enough to share
_ITEMS_PER_THREAD = 8  # for split sequences: a late thread leaves little behind
_SCRATCH_FLOATS = 1 << 22
_MAX_INT32 = 2**31 - 1


@dataclass(frozen=True)
class NativePlan:
    """One KV group's part of a step: two arrays that instructions take as operands."""

    buffer: Int32
    scratch: NDArray[np.float32]  # partial results; lives through one step only


def make_scratch() -> NDArray[np.float32]:
    """Room for the partial results of one layer, for all plans of a device; untouched it is free.

    Where a step needs more, the kernels do not split: the result is the same.
    """
    return np.empty(_SCRATCH_FLOATS, np.float32)


def make_plan(
    batch: StepBatch,
    group: GroupBatch,
    block_size: int,
    *,
    num_threads: int,
    scratch: NDArray[np.float32],
) -> NativePlan:
    """The plan of one KV group of a host batch; it does not matter to the results who runs it."""
    query_start, seq_lens = np.asarray(batch.query_start), np.asarray(batch.seq_lens)
    items, splits, num_partials = _share(query_start, seq_lens, num_threads)
    table, slots = np.asarray(group.block_table), np.asarray(group.slots)
    parts = (slots, query_start, seq_lens, table.reshape(-1), items, splits)
    ends = np.cumsum([_HEADER, *(part.size for part in parts)])
    buffer = np.empty(ends[-1], np.int32)
    buffer[:_HEADER] = (
        len(seq_lens),
        len(slots),
        block_size,
        table.shape[1],
        *ends[:-1],
        len(items),
        len(splits),
        num_partials,
        scratch.size,
        TILE_KEYS,
        min(int(items[:, 4].sum()), _MAX_INT32),  # tiles read
        min(int(items[:, 2] @ items[:, 4].astype(np.int64)), _MAX_INT32),  # by how many queries
        *(0,) * 3,
    )
    for part, start, end in zip(parts, ends[:-1], ends[1:], strict=True):
        buffer[start:end] = part.reshape(-1)
    return NativePlan(buffer, scratch)


def _share(query_start: Int32, seq_lens: Int32, num_threads: int) -> tuple[Int32, Int32, int]:
    """(items, splits, number of partial results).

    Items are [n, 6]: sequence, first token, queries, first tile, tiles, first partial result or -1;
    the costliest first. Splits are [n, 5]: sequence, first token, queries, tiles, first partial.
    """
    queries = np.diff(query_start)
    seqs = np.flatnonzero((seq_lens > 0) & (queries > 0))
    queries, tokens, lens = queries[seqs], query_start[seqs], seq_lens[seqs]
    tiles = -(-lens // TILE_KEYS)
    tiles_per_item = max(1, -(-int(tiles.sum()) // (_ITEMS_PER_THREAD * num_threads)))
    is_split = (tiles > tiles_per_item) & (queries <= _MAX_SPLIT_QUERIES) & (num_threads > 1)
    partials = np.where(is_split, tiles * queries, 0)
    first_partial = np.where(is_split, np.cumsum(partials) - partials, -1)

    pieces = np.where(is_split, -(-tiles // tiles_per_item), -(-queries // _QUERIES_PER_ITEM))
    owner = np.repeat(np.arange(len(seqs)), pieces)
    piece = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    first_tile = np.where(is_split[owner], piece * tiles_per_item, 0)
    first_query = np.where(is_split[owner], 0, piece * _QUERIES_PER_ITEM)
    num_queries = np.where(
        is_split[owner],
        queries[owner],
        np.minimum(queries[owner] - first_query, _QUERIES_PER_ITEM),
    )
    # Unsplit, a piece reads up to its last query.
    behind = queries[owner] - first_query - num_queries
    num_tiles = np.where(
        is_split[owner],
        np.minimum(tiles[owner] - first_tile, tiles_per_item),
        -(-(lens[owner] - behind) // TILE_KEYS),
    )
    columns = (
        seqs[owner],
        tokens[owner] + first_query,
        num_queries,
        first_tile,
        num_tiles,
        first_partial[owner],
    )
    items = np.stack(columns, axis=1).astype(np.int32)
    items = items[np.argsort(-num_queries * num_tiles, kind="stable")]
    splits = np.stack((seqs, tokens, queries, tiles, first_partial), axis=1)[is_split]
    return items, splits.astype(np.int32), int(partials.sum())
