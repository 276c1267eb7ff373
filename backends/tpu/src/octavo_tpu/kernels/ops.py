"""The kernels as ops of octavo.api.Ops, for the two attentions that the backend offers on TPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from octavo.api import AttentionParams, UsageError
from octavo_tpu.kernels import paged_attention as pallas
from octavo_tpu.kernels.layout import RowCache
from octavo_tpu.kernels.shipped import reason_against, shipped_attention
from octavo_tpu.kernels.write import write_tokens

if TYPE_CHECKING:
    import jax
    from jaxtyping import Float

__all__ = ["paged_attention", "ragged_attention", "write_kv"]


def write_kv(
    cache: RowCache,
    k: Float[jax.Array, "tokens kv_heads head_dim"],
    v: Float[jax.Array, "tokens kv_heads head_dim"],
    plan: Any,
) -> RowCache:
    """Store K and V at the plan's slots. ``cache`` is dead afterwards."""
    return write_tokens(cache, k, v, plan)


def paged_attention(
    q: Float[jax.Array, "tokens heads head_dim"],
    cache: RowCache,
    plan: Any,
    params: AttentionParams,
    sinks: Float[jax.Array, "heads"] | None = None,
) -> Float[jax.Array, "tokens heads head_dim"]:
    """Octavo's own kernel."""
    attended: jax.Array = pallas.paged_attention(q, cache, plan, params, sinks)
    return attended


def ragged_attention(
    q: Float[jax.Array, "tokens heads head_dim"],
    cache: RowCache,
    plan: Any,
    params: AttentionParams,
    sinks: Float[jax.Array, "heads"] | None = None,
) -> Float[jax.Array, "tokens heads head_dim"]:
    """JAX's kernel. Raises UsageError for what it does not compute, when a step is traced."""
    reason = reason_against(cache, params, sinks)
    if reason is not None:
        raise UsageError(
            f"--attention-backend ragged cannot serve this model: {reason}; use pallas."
        )
    return shipped_attention(q, cache, plan, params)
