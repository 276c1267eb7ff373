"""The work list of ragged paged attention: what each program of the kernel reads and writes.

A program takes up to ``tile_tokens`` consecutive queries of one sequence. The list has a fixed
length, so that steps of one bucket share a program; what is left over does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Int

    from octavo.api import AttentionParams, AttentionPlan

__all__ = ["CHUNKS", "END_KEY", "FIELDS", "FIRST_BLOCK", "FIRST_CHUNK", "POSITION", "SEQ", "START",
           "TOKENS", "work_items"]  # fmt: skip

# The fields of an item, in order.
SEQ = 0  # row of the block table
START = 1  # first token
TOKENS = 2  # how many; 0 for nothing to do
POSITION = 3  # of the first token in its sequence
FIRST_BLOCK = 4  # place in the sequence's table of the first block that any token sees
END_KEY = 5  # one behind the last position that any token sees
CHUNKS = 6  # pieces that the keys are read in
FIRST_CHUNK = 7  # how many chunks all items before this one have
FIELDS = 8


def work_items(
    plan: AttentionPlan,
    params: AttentionParams,
    *,
    tile_tokens: int,
    block_size: int,
    chunk_tokens: int,
) -> Int[jax.Array, "items_times_fields"]:
    """All items, one after the other, flat: two dimensions would be padded in scalar memory."""
    num_tokens, num_seqs = plan.positions.shape[0], plan.seq_lens.shape[0]
    num_items = min(num_tokens, num_seqs + num_tokens // tile_tokens)
    query_lens = plan.query_start[1:] - plan.query_start[:-1]
    tiles = -(-query_lens // tile_tokens)
    ends = jnp.cumsum(tiles)
    item = jnp.arange(num_items, dtype=jnp.int32)
    seq = jnp.minimum(jnp.searchsorted(ends, item, side="right"), num_seqs - 1).astype(jnp.int32)
    offset = (item - (ends - tiles)[seq]) * tile_tokens
    tokens = jnp.where(item < ends[-1], jnp.clip(query_lens[seq] - offset, 0, tile_tokens), 0)
    start = jnp.minimum(plan.query_start[seq] + offset, num_tokens - 1)
    position = plan.positions[start]
    end_key = plan.seq_lens[seq]
    if params.causal:
        end_key = jnp.minimum(end_key, position + tokens)
    elif params.window is not None:
        end_key = jnp.minimum(end_key, position + tokens + params.window - 1)
    first_block = jnp.zeros_like(item)
    if params.window is not None:
        first_block = jnp.maximum(position - params.window + 1, 0) // block_size
    num_keys = jnp.maximum(end_key - first_block * block_size, 0)
    chunks = jnp.where(tokens > 0, -(-num_keys // chunk_tokens), 0)
    fields = [seq, start, tokens, position, first_block, end_key, chunks, jnp.cumsum(chunks)]
    fields[FIRST_CHUNK] = fields[FIRST_CHUNK] - chunks
    return jnp.stack(fields, axis=1).astype(jnp.int32).reshape(-1)
