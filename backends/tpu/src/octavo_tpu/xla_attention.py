"""Paged attention for every platform of XLA: tiles of queries over pieces of their contexts.

A loop goes over the keys in pieces; each turn gathers one piece of every tile's context through the
block table and extends a running softmax. It ends with the longest context of the step, which the
device knows: so that one program serves contexts of every length, and none pays for a longer one.
Where a platform's loops cannot end so, it ends with the block table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from octavo_tpu.caches import XlaCache, decode, encode

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from octavo.api import AttentionParams
    from octavo_tpu.plan import XlaPlan

__all__ = ["paged_attention", "write_kv"]

_PIECE_KEYS = 128
_SHORT_PIECE_KEYS = 64  # of eight sequences: what a core's second cache holds
_MASKED_SCORE = -1e30  # finite, so that a row with no key at all gives no NaN


class _Softmax(NamedTuple):
    """The running softmax of every row and head over the keys seen so far, in float32."""

    maximum: Float[jax.Array, "tiles kv_heads rows 1"]
    denominator: Float[jax.Array, "tiles kv_heads rows 1"]
    weighted: Float[jax.Array, "tiles kv_heads rows head_dim"]


def write_kv(
    cache: XlaCache,
    k: Float[jax.Array, "tokens kv_heads head_dim"],
    v: Float[jax.Array, "tokens kv_heads head_dim"],
    slots: Int[jax.Array, "tokens"],
) -> XlaCache:
    """Scatter this step's keys and values. The argument ``cache`` is dead."""
    block_size = cache.kv.shape[1]
    place = (slots // block_size, slots % block_size)
    kv, scales = encode(jnp.concatenate([k, v], axis=1), cache.dtype)
    stored = cache.scales
    if stored is not None:
        stored = stored.at[place].set(scales, mode="promise_in_bounds")
    return XlaCache(cache.kv.at[place].set(kv, mode="promise_in_bounds"), stored, cache.dtype)


def paged_attention(
    q: Float[jax.Array, "tokens heads head_dim"],
    cache: XlaCache,
    plan: XlaPlan,
    params: AttentionParams,
    sinks: Float[jax.Array, "heads"] | None,
    *,
    ends_early: bool = True,
    short_decodes: bool = False,
) -> Float[jax.Array, "tokens heads head_dim"]:
    """Attention of each token over the cached keys of its sequence; zeros for padding.

    Without ``ends_early`` the loop has as many turns in every step; with ``short_decodes`` its
    pieces are shorter where each tile is of one query.
    """
    heads, head_dim = q.shape[1:]
    block_size, kv_heads = cache.kv.shape[1], cache.kv.shape[2] // 2
    group = heads // kv_heads
    tiles, tile = plan.tile_tokens.shape
    # The heads that share a key head are rows beside each other: [tiles, kv_heads, rows, head_dim].
    queries = jnp.take(q, plan.tile_tokens.reshape(-1), axis=0).astype(jnp.float32) * params.scale
    queries = queries.reshape(tiles, tile, kv_heads, group, head_dim).transpose(0, 2, 1, 3, 4)
    queries = queries.reshape(tiles, kv_heads, tile * group, head_dim)
    positions = jnp.repeat(plan.tile_positions, group, axis=1)  # [tiles, rows]
    lengths = jnp.take(plan.seq_lens, plan.tile_seqs, axis=0)
    tables = jnp.take(plan.block_table, plan.tile_seqs, axis=0)
    piece_keys = _SHORT_PIECE_KEYS if short_decodes and tile == 1 else _PIECE_KEYS
    piece_blocks = min(max(1, piece_keys // block_size), tables.shape[1])
    piece = piece_blocks * block_size
    turns = (0, -(-tables.shape[1] // piece_blocks))
    if ends_early:
        first, end = _seen_keys(positions, lengths, params)
        turns = (first // piece, -(-end // piece))

    def extend(index: jax.Array, softmax: _Softmax) -> _Softmax:
        blocks = jax.lax.dynamic_slice_in_dim(tables, index * piece_blocks, piece_blocks, axis=1)
        start = jnp.minimum(index * piece_blocks, tables.shape[1] - piece_blocks) * block_size
        keys = start + jnp.arange(piece, dtype=jnp.int32)
        # The last piece begins early where the table ends within it: what was seen is left out.
        visible = _visible(keys, positions, lengths, params) & (keys >= index * piece)
        own = jnp.any(visible, axis=1)  # [tiles, keys]
        k, v = jnp.split(_gather(cache, blocks, own), 2, axis=2)
        return _extended(softmax, queries, k, v, visible, params.soft_cap)

    softmax = jax.lax.fori_loop(*turns, extend, _start(queries, sinks))
    denominator = jnp.where(softmax.denominator > 0, softmax.denominator, 1.0)
    attended = (softmax.weighted / denominator).reshape(tiles, kv_heads, tile, group, head_dim)
    attended = attended.transpose(0, 2, 1, 3, 4).reshape(tiles * tile, heads, head_dim)
    return jnp.take(attended, plan.token_rows, axis=0).astype(q.dtype)


def _seen_keys(
    positions: Int[jax.Array, "tiles rows"],
    lengths: Int[jax.Array, "tiles"],
    params: AttentionParams,
) -> tuple[Int[jax.Array, ""], Int[jax.Array, ""]]:
    """The first key that some row sees, and the one after the last."""
    is_row = positions >= 0
    last = jnp.where(is_row, positions + 1, 0) if params.causal else lengths
    first = jnp.int32(0)
    if params.window is not None:
        begins = jnp.where(is_row, positions - params.window + 1, jnp.iinfo(jnp.int32).max)
        first = jnp.maximum(jnp.min(begins), 0)
    return first, jnp.max(last)


def _visible(
    keys: Int[jax.Array, "keys"],
    positions: Int[jax.Array, "tiles rows"],
    lengths: Int[jax.Array, "tiles"],
    params: AttentionParams,
) -> Bool[jax.Array, "tiles rows keys"]:
    """Which of the keys each row may see."""
    position = positions[:, :, None]
    visible = (keys < lengths[:, None, None]) & (position >= 0)
    if params.causal:
        visible = visible & (keys <= position)
    if params.window is not None:
        visible = visible & (keys > position - params.window)
        if not params.causal:
            visible = visible & (keys < position + params.window)
    return visible


def _gather(
    cache: XlaCache, blocks: Int[jax.Array, "tiles blocks"], own: Bool[jax.Array, "tiles keys"]
) -> Float[jax.Array, "tiles keys both_heads head_dim"]:
    """A piece of each tile's keys and values; 0 where none is seen, whatever lies there."""
    scales = None if cache.scales is None else _pieces(cache.scales, blocks, own)
    found = decode(_pieces(cache.kv, blocks, own), scales, cache.dtype)
    return jnp.where(own[:, :, None, None], found, 0.0)


def _pieces(stored: jax.Array, blocks: Int[jax.Array, "tiles blocks"], own: jax.Array) -> jax.Array:
    found = jnp.take(stored, blocks.reshape(-1), axis=0, mode="clip")
    return found.reshape(*own.shape, *stored.shape[2:])


def _start(
    queries: Float[jax.Array, "tiles kv_heads rows head_dim"],
    sinks: Float[jax.Array, "heads"] | None,
) -> _Softmax:
    """Before any key: nothing, or one key of each head that scores the sink and has value 0."""
    nothing = jnp.zeros((*queries.shape[:3], 1), jnp.float32)
    zeros = jnp.zeros_like(queries)
    if sinks is None:
        return _Softmax(nothing + _MASKED_SCORE, nothing, zeros)
    kv_heads = queries.shape[1]
    group = sinks.shape[0] // kv_heads
    scores = sinks.astype(jnp.float32).reshape(1, kv_heads, 1, group)
    scores = jnp.tile(scores, (1, 1, queries.shape[2] // group, 1))
    return _Softmax(nothing + scores.reshape(1, kv_heads, -1, 1), nothing + 1.0, zeros)


def _extended(
    softmax: _Softmax,
    queries: Float[jax.Array, "tiles kv_heads rows head_dim"],
    k: Float[jax.Array, "tiles keys kv_heads head_dim"],
    v: Float[jax.Array, "tiles keys kv_heads head_dim"],
    visible: Bool[jax.Array, "tiles rows keys"],
    cap: float | None,
) -> _Softmax:
    """The softmax after one more piece of keys."""
    scores = jnp.einsum("thrd,tkhd->thrk", queries, k, preferred_element_type=jnp.float32)
    if cap is not None:
        scores = cap * jnp.tanh(scores / cap)
    seen = visible[:, None]
    scores = jnp.where(seen, scores, _MASKED_SCORE)
    maximum = jnp.maximum(softmax.maximum, jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.where(seen, jnp.exp(scores - maximum), 0.0)
    fade = jnp.exp(softmax.maximum - maximum)
    product = jnp.einsum("thrk,tkhd->thrd", weights, v, preferred_element_type=jnp.float32)
    return _Softmax(
        maximum,
        softmax.denominator * fade + jnp.sum(weights, axis=-1, keepdims=True),
        softmax.weighted * fade + product,
    )
