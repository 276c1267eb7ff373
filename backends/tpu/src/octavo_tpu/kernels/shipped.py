"""JAX's own ``ragged_paged_attention`` over our cache, where its layout and features serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from octavo.api import AttentionParams
from octavo_tpu.kernels.layout import LANES, RowCache

if TYPE_CHECKING:
    from jaxtyping import Float

    from octavo.api import AttentionPlan

__all__ = ["arguments", "reason_against", "shipped_attention"]

_CHUNK_TOKENS = 256
_VMEM_BYTES = 48 << 20
_TILE_TOKENS = 32


def reason_against(
    cache: RowCache, params: AttentionParams, sinks: jax.Array | None = None
) -> str | None:
    """None where it computes this attention, else what it lacks."""
    if cache.head_dim != LANES:
        return f"it takes heads of {LANES} features, not of {cache.head_dim}"
    if cache.rows.shape[2] != 2 * cache.kv_heads:
        return f"it takes no padding between the rows of {cache.kv_heads} heads"
    if cache.scales is not None:
        return "it takes no scale for each token and head"
    if not params.causal:
        return "it is causal"
    return None if sinks is None else "it knows no sinks"


def arguments(
    q: Float[jax.Array, "tokens heads head_dim"],
    cache: RowCache,
    plan: AttentionPlan,
    params: AttentionParams,
) -> tuple[tuple[jax.Array, ...], dict[str, Any]]:
    """Positional and named arguments, also of ``ref_ragged_paged_attention``.

    It stops at the first sequence that it is not told of, so that padding costs nothing.
    """
    lengths: Any = plan.seq_lens
    num_seqs = jnp.sum(jnp.arange(len(lengths)) < _real_seqs(lengths)).astype(jnp.int32)
    positional: Any = (
        q,
        cache.rows,
        lengths,
        plan.block_table,
        plan.query_start,
        num_seqs.reshape(1),
    )
    named = {
        "sm_scale": params.scale,
        "sliding_window": params.window,
        "soft_cap": params.soft_cap,
    }
    return positional, named


def _real_seqs(lengths: jax.Array) -> jax.Array:
    """One more than the last sequence that has tokens."""
    return jnp.max(jnp.where(lengths > 0, jnp.arange(1, len(lengths) + 1), 0))


def shipped_attention(
    q: Float[jax.Array, "tokens heads head_dim"],
    cache: RowCache,
    plan: AttentionPlan,
    params: AttentionParams,
) -> Float[jax.Array, "tokens heads head_dim"]:
    """Attention by JAX's kernel, on a TPU only; ask ``reason_against`` first."""
    from jax.experimental.pallas.ops.tpu.ragged_paged_attention import ragged_paged_attention

    positional, named = arguments(q, cache, plan, params)
    chunk_blocks = max(1, _CHUNK_TOKENS // cache.rows.shape[1])
    attended: jax.Array = ragged_paged_attention(
        *positional,
        **named,
        num_kv_pages_per_block=min(chunk_blocks, plan.block_table.shape[1]),
        num_queries_per_block=min(_TILE_TOKENS, len(q)),
        vmem_limit_bytes=_VMEM_BYTES,
    )
    return attended
