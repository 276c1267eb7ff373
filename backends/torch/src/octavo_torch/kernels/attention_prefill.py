"""Attention of any batch in one launch: tiles of queries over tiles of the keys in the cache.

A program has some tokens of one sequence and all query heads of one KV head: its rows. Keys and
values are gathered through the block table, row by row; or tile by tile (``tile_loads`` in
tuned.toml), where blocks hold whole tiles and the GPU has a unit for such copies. Tiles that no
query sees are not visited, and those that all queries see are not masked.

A token's result depends on where its tile begins, and so on how a prompt is split into steps, but
not on the other sequences of the batch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from octavo.api import AttentionParams
from octavo_torch.caches import TorchCache
from octavo_torch.kernels.attention_cases import PREFILL_CASES, attention_reference
from octavo_torch.kernels.attention_parts import (
    add_sink,
    attention_arguments,
    extend,
    finish,
    tiles_of,
)
from octavo_torch.kernels.kernel import Kernel
from octavo_torch.kernels.tuning import launch_options
from octavo_torch.plan import TorchPlan

__all__ = ["KERNELS", "attention_prefill"]


@triton.jit
def _sequence_of_tile(query_start_ptr, end_seq, tile, TOKENS: tl.constexpr):
    """The last sequence whose tiles begin at ``tile`` or before.

    Sequence s has them from ``query_start[s] // TOKENS + s`` on, more than it needs by one at most.
    """
    low = 0
    high = end_seq
    while high - low > 1:
        middle = (low + high) // 2
        if tl.load(query_start_ptr + middle) // TOKENS + middle <= tile:
            low = middle
        else:
            high = middle
    return low


# Numbers that change from step to step are nothing to compile anew for.
@triton.jit(do_not_specialize=["num_seqs", "table_stride"])
def _attention_prefill(  # noqa: PLR0912, PLR0915 - one program, from its tile to its rows
    q_ptr,  # [tokens, heads, head_dim]
    out_ptr,  # the same, contiguous
    k_ptr,  # [num_blocks, kv_heads, block_size, head_dim], or a descriptor of its tiles
    v_ptr,
    k_scale_ptr,  # float32 [num_blocks, kv_heads, block_size] or [kv_heads], or unused
    v_scale_ptr,
    sinks_ptr,  # [heads], or unused
    table_ptr,  # i32[seqs, blocks]
    query_start_ptr,  # i32[seqs + 1]
    seq_lens_ptr,  # i32[seqs]
    num_seqs,
    table_stride,
    q_token_stride,
    q_head_stride,
    scale,
    cap,
    window,
    DTYPE: tl.constexpr,
    KIND: tl.constexpr,
    NATIVE_FP8: tl.constexpr,
    HEAD_SCALES: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    HAS_CAP: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    SKIP_SINGLE: tl.constexpr,  # sequences with one query are another kernel's
    ROW_TILE: tl.constexpr,
    KEY_TILE: tl.constexpr,
    TILE_LOADS: tl.constexpr,
    DIM_TILE: tl.constexpr,
):
    GROUP: tl.constexpr = HEADS // KV_HEADS
    TOKENS: tl.constexpr = ROW_TILE // GROUP
    tile = tl.num_programs(0) - 1 - tl.program_id(0)  # the longest first
    kv_head = tl.program_id(1)
    seq = _sequence_of_tile(query_start_ptr, num_seqs, tile, TOKENS)
    query_start = tl.load(query_start_ptr + seq)
    num_queries = tl.load(query_start_ptr + seq + 1) - query_start
    first_query = (tile - (query_start // TOKENS + seq)) * TOKENS
    if first_query >= num_queries:
        return
    if SKIP_SINGLE and num_queries == 1:
        return
    seq_len = tl.load(seq_lens_ptr + seq)
    row = tl.arange(0, ROW_TILE)
    query = first_query + row // GROUP
    head = kv_head * GROUP + row % GROUP
    is_row = (row < TOKENS * GROUP) & (query < num_queries)
    dim = tl.arange(0, D_PAD)
    inside = is_row[:, None] & (dim < D)[None, :]
    token = (query_start + query).to(tl.int64)
    if DIM_TILE < D_PAD:
        near = (query_start + tl.minimum(query, num_queries - 1)).to(tl.int64)
        q = q_ptr + near * q_token_stride + head * q_head_stride
    else:
        q_rows = q_ptr + token * q_token_stride + head * q_head_stride
        q = tl.load(q_rows[:, None] + dim[None, :], mask=inside, other=0.0).to(DTYPE)
    if HEAD_SCALES:
        scale *= tl.load(k_scale_ptr + kv_head)

    past = seq_len - num_queries
    position = past + query
    lowest_position = past + first_query
    top_position = past + tl.minimum(first_query + TOKENS, num_queries) - 1
    first_key = 0  # keys that some query sees: first_key … end_key
    end_key = seq_len
    first_full = 0  # keys that all queries see: first_full … end_full
    end_full = seq_len
    if CAUSAL:
        end_key = tl.minimum(end_key, top_position + 1)
        end_full = tl.minimum(end_full, lowest_position + 1)
    if HAS_WINDOW:
        first_key = tl.maximum(lowest_position - window + 1, 0)
        first_full = tl.maximum(top_position - window + 1, 0)
        if not CAUSAL:
            end_key = tl.minimum(end_key, top_position + window)
            end_full = tl.minimum(end_full, lowest_position + window)
    end_key = tl.maximum(end_key, 0)  # padding's queries have no keys
    start = first_key // KEY_TILE * KEY_TILE
    full_start = tl.minimum(tl.cdiv(first_full, KEY_TILE) * KEY_TILE, end_key)
    full_end = tl.maximum(end_full // KEY_TILE * KEY_TILE, full_start)

    table = table_ptr + seq.to(tl.int64) * table_stride
    highest = tl.full((ROW_TILE,), -1e30, tl.float32)
    total = tl.zeros((ROW_TILE,), tl.float32)
    weighted = tl.zeros((ROW_TILE, D_PAD), tl.float32)
    if HAS_WINDOW:
        for at in range(start, full_start, KEY_TILE):
            highest, total, weighted = extend(
                q, highest, total, weighted, position, at, first_key, end_key,
                k_ptr, v_ptr, k_scale_ptr, v_scale_ptr, table, kv_head, scale, cap, window,
                DTYPE, KIND, NATIVE_FP8, KV_HEADS, BLOCK_SIZE, D, D_PAD, KEY_TILE,
                HAS_CAP, HAS_WINDOW, CAUSAL, MASKED=True, TILE_LOADS=TILE_LOADS, DIM_TILE=DIM_TILE,
            )  # fmt: skip
    for at in range(full_start, full_end, KEY_TILE):
        highest, total, weighted = extend(
            q, highest, total, weighted, position, at, first_key, end_key,
            k_ptr, v_ptr, k_scale_ptr, v_scale_ptr, table, kv_head, scale, cap, window,
            DTYPE, KIND, NATIVE_FP8, KV_HEADS, BLOCK_SIZE, D, D_PAD, KEY_TILE,
            HAS_CAP, HAS_WINDOW, CAUSAL, MASKED=False, TILE_LOADS=TILE_LOADS, DIM_TILE=DIM_TILE,
        )  # fmt: skip
    for at in range(full_end, end_key, KEY_TILE):
        highest, total, weighted = extend(
            q, highest, total, weighted, position, at, first_key, end_key,
            k_ptr, v_ptr, k_scale_ptr, v_scale_ptr, table, kv_head, scale, cap, window,
            DTYPE, KIND, NATIVE_FP8, KV_HEADS, BLOCK_SIZE, D, D_PAD, KEY_TILE,
            HAS_CAP, HAS_WINDOW, CAUSAL, MASKED=True, TILE_LOADS=TILE_LOADS, DIM_TILE=DIM_TILE,
        )  # fmt: skip
    if HAS_SINKS:
        sink = tl.load(sinks_ptr + head, mask=is_row, other=0.0)
        highest, total, weighted = add_sink(highest, total, weighted, sink)
    attended = finish(total, weighted)
    if HEAD_SCALES:
        attended *= tl.load(v_scale_ptr + kv_head)
    out_rows = out_ptr + (token * HEADS + head) * D
    tl.store(out_rows[:, None] + dim[None, :], attended.to(out_ptr.dtype.element_ty), mask=inside)


def attention_prefill(
    q: torch.Tensor,  # [tokens, heads, head_dim]
    cache: TorchCache,
    plan: TorchPlan,
    params: AttentionParams,
    sinks: torch.Tensor | None = None,  # [heads]
    *,
    out: torch.Tensor | None = None,
    skip_single: bool = False,
) -> torch.Tensor:
    """Attention [tokens, heads, head_dim] of every token over its sequence's cached keys.

    With ``skip_single``, rows of sequences that have one query in this step are left alone.
    """
    num_tokens, heads, head_dim = q.shape
    out = q.new_empty(q.shape) if out is None else out
    if not num_tokens:
        return out
    q = q if q.stride(2) == 1 else q.contiguous()
    arguments = attention_arguments(q, cache, params)
    group = heads // cache.k.shape[1]
    options = launch_options(
        "attention_prefill",
        q.device,
        head_dim=head_dim,
        block_size=cache.k.shape[2],
        item_bits=arguments["DTYPE"].primitive_bitwidth,
        kv_bits=8 * cache.k.itemsize,
        kv=arguments["KIND"],
    )
    row_tile = max(options.pop("row_tile"), triton.next_power_of_2(group))
    key_tile = options.pop("key_tile")
    dim_tile = options.pop("dim_tile", arguments["D_PAD"])
    tiles = tiles_of(cache, key_tile) if options.pop("tile_loads", False) else None
    arguments |= tiles or {}
    num_seqs = plan.num_seqs
    grid = (num_tokens // (row_tile // group) + num_seqs, cache.k.shape[1])
    _attention_prefill[grid](
        q_ptr=q, out_ptr=out, sinks_ptr=q if sinks is None else sinks,
        table_ptr=plan.block_table, query_start_ptr=plan.query_start,
        seq_lens_ptr=plan.seq_lens, num_seqs=num_seqs,
        table_stride=plan.block_table.stride(0),
        q_token_stride=q.stride(0), q_head_stride=q.stride(1),
        HAS_SINKS=sinks is not None, SKIP_SINGLE=skip_single,
        ROW_TILE=row_tile, KEY_TILE=key_tile, TILE_LOADS=tiles is not None, DIM_TILE=dim_tile,
        **arguments, **options,
    )  # fmt: skip
    return out


KERNELS = (Kernel("attention_prefill", attention_prefill, attention_reference, PREFILL_CASES),)
