"""Portable paged attention: online softmax over the blocks of each token's sequence.

Every shape is static and no branch looks at a value, so one source runs on NumPy, on torch (also
compiled) and inside ``jax.jit``. It is the definition and the fallback; it gathers the keys of
each token separately, so a backend that cares for speed overrides it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from octavo.ops.activations import soft_cap
from octavo.ops.arrays import device_of, set_at
from octavo.ops.protocol import AttentionParams, AttentionPlan
from octavo.ops.storage import PortableCache

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from octavo.batch import StepBatch
    from octavo.ops.arrays import Array, Namespace

__all__ = ["make_plans", "paged_attention", "write_kv"]

_MIN_CHUNK_TOKENS = 128
_MAX_CHUNKS = 16  # the loop is unrolled by compilers: keep it short, whatever the table's width
_MASKED_SCORE = -1e30  # finite, so that a row with no key at all gives no NaN


def make_plans(batch: StepBatch, put: Callable[[Any], Any]) -> tuple[AttentionPlan, ...]:
    """The portable plan of each KV group of a host batch; ``put`` moves an array to the device."""
    token_seqs, positions = put(batch.token_seqs), put(batch.positions)
    query_start, seq_lens = put(batch.query_start), put(batch.seq_lens)
    return tuple(
        AttentionPlan(
            block_table=put(group.block_table),
            slots=put(group.slots),
            token_seqs=token_seqs,
            positions=positions,
            query_start=query_start,
            seq_lens=seq_lens,
        )
        for group in batch.groups
    )


def write_kv(
    xp: Namespace,
    cache: PortableCache,
    k: Float[Array, "tokens kv_heads head_dim"],
    v: Float[Array, "tokens kv_heads head_dim"],
    plan: AttentionPlan,
) -> PortableCache:
    """Scatter this step's keys and values to the plan's slots. The argument ``cache`` is dead."""
    block_size = cache.k.shape[1]
    place = (plan.slots // block_size, plan.slots % block_size)
    return PortableCache(
        k=set_at(xp, cache.k, place, xp.astype(k, cache.k.dtype), copy=False),
        v=set_at(xp, cache.v, place, xp.astype(v, cache.v.dtype), copy=False),
    )


class _Softmax(NamedTuple):
    """The running softmax of every token and head over the keys seen so far, in float32."""

    maximum: Float[Array, "tokens kv_heads queries 1"]
    denominator: Float[Array, "tokens kv_heads queries 1"]
    weighted: Float[Array, "tokens kv_heads queries head_dim"]


def paged_attention(
    xp: Namespace,
    q: Float[Array, "tokens heads head_dim"],
    cache: PortableCache,
    plan: AttentionPlan,
    params: AttentionParams,
    sinks: Float[Array, "heads"] | None = None,
) -> Float[Array, "tokens heads head_dim"]:
    """Attention of each token over the cached keys of its sequence.

    The query heads of one KV head stand side by side, so K and V are never repeated. Without
    ``causal``, a window reaches as far ahead as it reaches back.
    """
    tokens, heads, head_dim = q.shape
    block_size, kv_heads = cache.k.shape[1], cache.k.shape[2]
    grouped = xp.astype(q, xp.float32).reshape(tokens, kv_heads, heads // kv_heads, head_dim)
    grouped = grouped * params.scale
    tables = xp.take(plan.block_table, plan.token_seqs, axis=0)  # [tokens, blocks]
    softmax = _start(xp, grouped, sinks)
    chunk_blocks = _blocks_per_chunk(tables.shape[1], block_size)
    for first_block in range(0, tables.shape[1], chunk_blocks):
        blocks = tables[:, first_block : first_block + chunk_blocks]
        visible = _visible(xp, plan, params, first_block * block_size, blocks.shape[1] * block_size)
        k = _gather(xp, cache.k, blocks, visible)
        v = _gather(xp, cache.v, blocks, visible)
        softmax = _extend(xp, softmax, grouped, k, v, visible, params.soft_cap)
    # A token without any key (padding) divides zero by one.
    denominator = softmax.denominator
    denominator = xp.where(denominator > 0, denominator, xp.ones_like(denominator))
    attended = (softmax.weighted / denominator).reshape(tokens, heads, head_dim)
    return xp.astype(attended, q.dtype)


def _blocks_per_chunk(num_blocks: int, block_size: int) -> int:
    by_tokens = -(-_MIN_CHUNK_TOKENS // block_size)
    by_count = -(-num_blocks // _MAX_CHUNKS)
    return max(by_tokens, by_count)


def _start(
    xp: Namespace,
    grouped: Float[Array, "tokens kv_heads queries head_dim"],
    sinks: Float[Array, "heads"] | None,
) -> _Softmax:
    """The state before any key: empty, or one key per head that scores the sink and has value 0."""
    zeros = xp.zeros_like(grouped)
    nothing = zeros[..., :1]
    if sinks is None:
        return _Softmax(nothing + _MASKED_SCORE, nothing, zeros)
    per_group = xp.astype(sinks, xp.float32).reshape(1, grouped.shape[1], grouped.shape[2], 1)
    return _Softmax(nothing + per_group, nothing + 1.0, zeros)


def _visible(
    xp: Namespace, plan: AttentionPlan, params: AttentionParams, first_key: int, num_keys: int
) -> Bool[Array, "tokens keys"]:
    """Which of the keys at positions first_key … each token may see."""
    keys = first_key + xp.arange(num_keys, dtype=xp.int32, device=device_of(plan.positions))
    keys = keys[None, :]
    position = plan.positions[:, None]
    visible = keys < xp.take(plan.seq_lens, plan.token_seqs, axis=0)[:, None]
    if params.causal:
        visible = visible & (keys <= position)
    if params.window is not None:
        visible = visible & (keys > position - params.window)
        if not params.causal:
            visible = visible & (keys < position + params.window)
    return visible


def _gather(
    xp: Namespace,
    stored: Float[Array, "num_blocks block_size kv_heads head_dim"],
    blocks: Int[Array, "tokens chunk_blocks"],
    visible: Bool[Array, "tokens keys"],
) -> Float[Array, "tokens kv_heads keys head_dim"]:
    """Each token's chunk of keys or values in float32; 0 where invisible, whatever lies there."""
    tokens, chunk_blocks = blocks.shape
    _, block_size, kv_heads, head_dim = stored.shape
    chunk = xp.take(stored, blocks.reshape(-1), axis=0)
    chunk = chunk.reshape(tokens, chunk_blocks * block_size, kv_heads, head_dim)
    chunk = xp.astype(chunk, xp.float32)
    chunk = xp.where(visible[:, :, None, None], chunk, xp.zeros_like(chunk))
    return xp.permute_dims(chunk, (0, 2, 1, 3))


def _extend(
    xp: Namespace,
    softmax: _Softmax,
    grouped: Float[Array, "tokens kv_heads queries head_dim"],
    k: Float[Array, "tokens kv_heads keys head_dim"],
    v: Float[Array, "tokens kv_heads keys head_dim"],
    visible: Bool[Array, "tokens keys"],
    cap: float | None,
) -> _Softmax:
    """The softmax after one more chunk of keys."""
    scores = xp.matmul(grouped, xp.permute_dims(k, (0, 1, 3, 2)))
    if cap is not None:
        scores = soft_cap(xp, scores, cap)
    seen = visible[:, None, None, :]
    scores = xp.where(seen, scores, xp.full_like(scores, _MASKED_SCORE))
    maximum = xp.maximum(softmax.maximum, xp.max(scores, axis=-1, keepdims=True))
    weights = xp.exp(scores - maximum)
    weights = xp.where(seen, weights, xp.zeros_like(weights))
    fade = xp.exp(softmax.maximum - maximum)
    return _Softmax(
        maximum=maximum,
        denominator=softmax.denominator * fade + xp.sum(weights, axis=-1, keepdims=True),
        weighted=softmax.weighted * fade + xp.matmul(weights, v),
    )
