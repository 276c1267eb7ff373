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
from functools import lru_cache
from itertools import accumulate
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
    work = _work(query_start, seq_lens, num_threads)
    table, slots = np.asarray(group.block_table), np.asarray(group.slots)
    parts = (slots, query_start, seq_lens, table.reshape(-1), work.items, work.splits)
    starts = tuple(accumulate((part.size for part in parts), initial=_HEADER))
    header = (len(seq_lens), len(slots), block_size, table.shape[1], *starts[:-1])
    header += (work.num_items, work.num_splits, work.num_partials, scratch.size, TILE_KEYS)
    header += (work.num_tiles, work.num_products, 0, 0, 0)
    return NativePlan(np.concatenate((np.array(header, np.int32), *parts)), scratch)


@dataclass(frozen=True)
class _Work:
    """Who does what in a step."""

    items: Int32  # [6 * num_items]: sequence, first token, queries, first tile, tiles,
    #               first partial result or -1; the costliest first
    splits: Int32  # [5 * num_splits]: sequence, first token, queries, tiles, first partial result
    num_items: int
    num_splits: int
    num_partials: int
    num_tiles: int  # that are read
    num_products: int  # of tiles and queries


def _work(query_start: Int32, seq_lens: Int32, num_threads: int) -> _Work:
    if query_start[-1] > len(seq_lens):
        return _share(query_start, seq_lens, num_threads)
    # One query each, which sees all tiles: the same work until a sequence begins another tile.
    tiles = -(-seq_lens // TILE_KEYS)
    return _share_decodes(query_start.tobytes(), tiles.tobytes(), num_threads)


@lru_cache(maxsize=32)
def _share_decodes(query_start: bytes, tiles: bytes, num_threads: int) -> _Work:
    last_seq_lens = np.frombuffer(tiles, np.int32) * TILE_KEYS
    return _share(np.frombuffer(query_start, np.int32), last_seq_lens, num_threads)


def _share(query_start: Int32, seq_lens: Int32, num_threads: int) -> _Work:
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
    products = num_queries * num_tiles.astype(np.int64)
    items = items[np.argsort(-products, kind="stable")]
    splits = np.stack((seqs, tokens, queries, tiles, first_partial), axis=1)[is_split]
    return _Work(
        items=items.reshape(-1),
        splits=splits.astype(np.int32).reshape(-1),
        num_items=len(items),
        num_splits=len(splits),
        num_partials=int(partials.sum()),
        num_tiles=min(int(num_tiles.sum()), _MAX_INT32),
        num_products=min(int(products.sum()), _MAX_INT32),
    )
