"""Attention of sequences with several queries: matrix products over tiles of queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from octavo_cpu.kernels.softmax import soft_cap, softmax

if TYPE_CHECKING:
    from octavo.api import AttentionParams
    from octavo_cpu.plan import KeyRange

__all__ = ["Tile", "attend_tile", "make_tiles"]

Float32 = NDArray[np.float32]

_MAX_SCORES = 1 << 18  # of one tile: 1 MiB
_MIN_TILE_QUERIES = 16


@dataclass(frozen=True)
class Tile:
    """Some queries of a sequence and the range of keys that any of them sees."""

    queries: slice
    keys: slice
    first_query: int  # index among ``keys`` of the first query's own key


def make_tiles(keys: KeyRange, num_heads: int, params: AttentionParams) -> list[Tile]:
    """Tiles over a sequence's queries; a tile's scores are whole rows, so one softmax does."""
    size = max(_MIN_TILE_QUERIES, _MAX_SCORES // (num_heads * keys.num_keys))
    tiles = []
    for start in range(0, keys.num_tokens, size):
        stop = min(start + size, keys.num_tokens)
        first_query, last_query = keys.first_query + start, keys.first_query + stop - 1
        first_key, end_key = _visible_keys(first_query, last_query, keys.num_keys, params)
        tiles.append(Tile(slice(start, stop), slice(first_key, end_key), first_query - first_key))
    return tiles


def _visible_keys(
    first_query: int, last_query: int, num_keys: int, params: AttentionParams
) -> tuple[int, int]:
    """The range of keys that any query of a tile sees."""
    first_key, end_key = 0, num_keys
    if params.window is not None:
        first_key = max(0, first_query - params.window + 1)
        end_key = min(num_keys, last_query + params.window)
    if params.causal:
        end_key = min(end_key, last_query + 1)
    return first_key, end_key


def attend_tile(
    q: Float32,  # [queries, kv_heads, group, head_dim], already scaled
    k: Float32,  # [keys, kv_heads, head_dim]
    v: Float32,
    params: AttentionParams,
    sinks: Float32 | None,  # [kv_heads, group, 1, 1]
    out: Float32,  # [queries, kv_heads, group, head_dim]
    tile: Tile,
) -> None:
    """Fill the tile's rows of ``out``; q, k, v and out are those of the whole sequence."""
    q, k, v = q[tile.queries], k[tile.keys], v[tile.keys]
    queries, kv_heads, group, head_dim = q.shape
    num_keys = len(k)
    by_head = q.transpose(1, 2, 0, 3).reshape(kv_heads, group * queries, head_dim)
    scores = np.matmul(by_head, k.transpose(1, 2, 0))
    if params.soft_cap is not None:
        soft_cap(scores, params.soft_cap)
    scores_by_query = scores.reshape(kv_heads, group, queries, num_keys)
    _mask(scores_by_query, tile.first_query, params)
    softmax(scores_by_query, sinks)
    attended = np.matmul(scores, v.transpose(1, 0, 2))
    out[tile.queries] = attended.reshape(kv_heads, group, queries, head_dim).transpose(2, 0, 1, 3)


def _mask(scores: Float32, first_query: int, params: AttentionParams) -> None:
    """Set the scores of keys that a query must not see to -inf.

    ::

        keys ->        first_query
                       v
        queries   w w . . x x x       x: the future, only in the last columns
              |   w w w . . x x       w: behind the window, only in the first columns
              v   w w w w . . x
    """
    queries, num_keys = scores.shape[2:]
    window = params.window
    query = np.arange(first_query, first_query + queries, dtype=np.int32)[:, None]
    key = np.arange(num_keys, dtype=np.int32)
    if params.causal and queries > 1:
        future = scores[..., first_query:]
        np.copyto(future, -np.inf, where=key[first_query:] > query)
    if window is None:
        return
    num_behind = min(num_keys, first_query + queries - window)
    if num_behind > 0:
        behind = scores[..., :num_behind]
        np.copyto(behind, -np.inf, where=key[:num_behind] <= query - window)
    if not params.causal and num_keys > first_query + window:
        ahead = scores[..., first_query + window :]
        np.copyto(ahead, -np.inf, where=key[first_query + window :] >= query + window)
