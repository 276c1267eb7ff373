"""Paged attention in plain torch, on any device: decodes together, other sequences one by one.

Keys and values are gathered out of the cache, then torch's own attention serves, or, where scores
are capped or a sink joins them, the formula itself. What is beyond a sequence, or behind its
window, may hold anything, NaN too: it is cut off where the host knows the place, and set to zero
elsewhere, since a weight of zero does not undo a NaN.

A step of decodes that is recorded has bounds in place of the host's numbers: what all its replays
may see is gathered, and masked by what the arrays say then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional

from octavo.api import AttentionParams
from octavo_torch.cache_codes import read_blocks
from octavo_torch.caches import TorchCache
from octavo_torch.plan import TorchPlan

__all__ = ["paged_attention"]

_GATHERED_BYTES = 4 << 20  # of keys, at once: larger pieces are fetched anew from the system
_GATHERED_BYTES_ON_GPUS = 256 << 20  # torch keeps such pieces there, and few launches matter


@dataclass(frozen=True)
class _Span:
    """Sequences that are attended to at once, and the keys that they see, all counts of the host's.

    Either sequences of one token each, or a single one.
    """

    first_seq: int
    num_seqs: int
    first_token: int
    num_tokens: int
    seq_lens: tuple[int, ...]
    first_keys: tuple[int, ...]
    """Of each sequence, the first key that any of its tokens sees."""
    is_bound: bool = False
    """The numbers of keys are not those of the sequences but the most that there may be."""


def paged_attention(
    q: torch.Tensor,  # [tokens, heads, head_dim]
    cache: TorchCache,
    plan: TorchPlan,
    params: AttentionParams,
    sinks: torch.Tensor | None = None,  # [heads]
) -> torch.Tensor:
    """Attention of each token over its sequence's cached keys; zeros in padded places."""
    spans = list(_spans(plan, params, cache))
    if len(spans) == 1 and spans[0].num_tokens == len(q):
        return _attend_span(q, cache, plan, params, sinks, spans[0])
    attended = torch.zeros_like(q)
    for span in spans:
        tokens = slice(span.first_token, span.first_token + span.num_tokens)
        attended[tokens] = _attend_span(q[tokens], cache, plan, params, sinks, span)
    return attended


def _spans(plan: TorchPlan, params: AttentionParams, cache: TorchCache) -> Iterator[_Span]:
    starts, seq_lens = plan.host_query_start, plan.host_seq_lens
    is_bound = plan.is_bound
    if is_bound:
        starts, seq_lens = tuple(range(plan.num_seqs + 1)), (plan.max_seq_len,) * plan.num_seqs
    num_decodes = 0
    while num_decodes < len(seq_lens) and starts[num_decodes + 1] == num_decodes + 1:
        num_decodes += 1

    def span(first: int, end: int) -> _Span:
        lengths = seq_lens[first:end]
        num_new = (starts[i + 1] - starts[i] for i in range(first, end))
        window = params.window
        first_keys = tuple(
            0 if window is None or is_bound else max(0, length - new - window + 1)
            for length, new in zip(lengths, num_new, strict=True)
        )
        num_tokens = starts[end] - starts[first]
        num_seqs = end - first
        return _Span(first, num_seqs, starts[first], num_tokens, lengths, first_keys, is_bound)

    key_bytes = cache.k.shape[1] * cache.k.shape[3] * 4
    at_once = _GATHERED_BYTES if cache.k.device.type == "cpu" else _GATHERED_BYTES_ON_GPUS
    seqs_at_once = max(1, at_once // (key_bytes * max(plan.max_seq_len, 1)))
    for first in range(0, num_decodes, seqs_at_once):
        yield span(first, min(first + seqs_at_once, num_decodes))
    for seq in range(num_decodes, len(seq_lens)):
        if starts[seq + 1] > starts[seq]:
            yield span(seq, seq + 1)


def _attend_span(
    q: torch.Tensor,
    cache: TorchCache,
    plan: TorchPlan,
    params: AttentionParams,
    sinks: torch.Tensor | None,
    span: _Span,
) -> torch.Tensor:
    block_size = cache.k.shape[2]
    first_block = min(span.first_keys) // block_size
    end_block = -(-max(span.seq_lens) // block_size)
    seqs = slice(span.first_seq, span.first_seq + span.num_seqs)
    blocks = plan.block_table[seqs, first_block:end_block]
    first_key, end_key = min(span.first_keys), max(span.seq_lens)
    keys = slice(first_key - first_block * block_size, end_key - first_block * block_size)
    computed = torch.promote_types(q.dtype, cache.k.dtype) if cache.k.itemsize > 1 else q.dtype
    k = read_blocks(cache.k, cache.k_scale, blocks, computed)[:, :, keys]
    v = read_blocks(cache.v, cache.v_scale, blocks, computed)[:, :, keys]
    visible = _visible(plan, params, span, first_key, end_key)
    if (span.num_seqs > 1 or span.is_bound) and visible is not None:
        _clear(k, v, visible, span, first_key)
    # [seqs, heads, new tokens, head_dim]
    query = q.to(k.dtype).view(span.num_seqs, -1, *q.shape[1:]).transpose(1, 2)
    if params.soft_cap is None and sinks is None:
        attended = _attend(query, k, v, visible, params)
    else:
        attended = _attend_by_formula(query, k, v, visible, params, sinks)
    return attended.transpose(1, 2).reshape(q.shape).to(q.dtype)


def _visible(
    plan: TorchPlan, params: AttentionParams, span: _Span, first_key: int, end_key: int
) -> torch.Tensor | None:
    """bool[seqs, 1, new tokens, keys]; None where all are, or the causal triangle is it."""
    new_tokens = span.num_tokens // span.num_seqs
    is_alone = span.num_seqs == 1 and not span.is_bound
    is_whole = is_alone and first_key == 0 and params.window is None
    if is_whole and (not params.causal or new_tokens in (1, end_key)):
        return None
    if is_alone and new_tokens == 1 and params.causal:
        return None  # the keys are cut to the window
    tokens = slice(span.first_token, span.first_token + span.num_tokens)
    position = plan.positions[tokens].view(span.num_seqs, 1, new_tokens, 1)
    seqs = slice(span.first_seq, span.first_seq + span.num_seqs)
    keys = torch.arange(first_key, end_key, dtype=torch.int32, device=position.device)
    visible = keys < plan.seq_lens[seqs].view(-1, 1, 1, 1)
    if params.causal:
        visible = visible & (keys <= position)
    if params.window is not None:
        visible = visible & (keys > position - params.window)
        if not params.causal:
            visible = visible & (keys < position + params.window)
    return visible


def _clear(
    k: torch.Tensor, v: torch.Tensor, visible: torch.Tensor, span: _Span, first_key: int
) -> None:
    """Zeros where a sequence of one token sees nothing: ahead of its window, and past its end."""
    hidden = ~visible.view(span.num_seqs, 1, -1, 1)
    shortest = 0 if span.is_bound else min(span.seq_lens) - first_key
    for part in (slice(0, max(span.first_keys) - first_key), slice(shortest, None)):
        if hidden[:, :, part].shape[2]:
            k[:, :, part].masked_fill_(hidden[:, :, part], 0)
            v[:, :, part].masked_fill_(hidden[:, :, part], 0)


def _attend(
    q: torch.Tensor,  # [seqs, heads, new tokens, head_dim]
    k: torch.Tensor,  # [seqs, kv_heads, keys, head_dim]
    v: torch.Tensor,
    visible: torch.Tensor | None,
    params: AttentionParams,
) -> torch.Tensor:
    """What torch has for it; single tokens' heads that share a key head stand side by side."""
    num_seqs, heads, new_tokens, head_dim = q.shape
    kv_heads = k.shape[1]
    if new_tokens == 1:
        grouped = q.reshape(num_seqs, kv_heads, heads // kv_heads, head_dim)
        attended = functional.scaled_dot_product_attention(
            grouped, k, v, attn_mask=visible, scale=params.scale
        )
        return attended.reshape(q.shape)
    return functional.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=visible,
        is_causal=visible is None and params.causal,
        scale=params.scale,
        enable_gqa=heads > kv_heads,
    )


def _attend_by_formula(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    visible: torch.Tensor | None,
    params: AttentionParams,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Softmax of capped scores, with a sink beside them, in float32."""
    num_seqs, heads, new_tokens, head_dim = q.shape
    kv_heads, num_keys = k.shape[1:3]
    grouped = q.float().reshape(num_seqs, kv_heads, -1, head_dim)  # heads of a group, then tokens
    scores = (grouped * params.scale) @ k.float().transpose(2, 3)
    scores = scores.view(num_seqs, heads, new_tokens, num_keys)
    if params.soft_cap is not None:
        scores = params.soft_cap * torch.tanh(scores / params.soft_cap)
    if visible is None and params.causal and new_tokens > 1:
        square = torch.ones(new_tokens, num_keys, dtype=torch.bool, device=q.device)
        visible = square.tril()
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    if sinks is not None:
        sink = sinks.float().view(1, heads, 1, 1).expand(num_seqs, heads, new_tokens, 1)
        scores = torch.cat([scores, sink], -1)
    weights = scores.softmax(-1)[..., :num_keys]
    attended = weights.reshape(num_seqs, kv_heads, -1, num_keys) @ v.float()
    return attended.view(q.shape)
