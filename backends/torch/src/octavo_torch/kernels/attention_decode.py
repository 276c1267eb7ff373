"""Attention of sequences that have one query each: the context is split over programs.

A program has one sequence, the query heads of one KV head (padded to 16 rows, the matrix unit's
least) and a share of the context; each key and value is read once. With several shares a second
kernel, ``attention_reduce``, joins them. Shares follow from the length that the device knows, so a
recorded launch is valid for every length; a program whose share is empty ends at once.

How many shares there are depends on the number of sequences, and so does the order of summation:
results are the same for the same batch size, not across batch sizes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from octavo.api import AttentionParams
from octavo_torch.caches import TorchCache
from octavo_torch.kernels.attention_cases import DECODE_CASES, attention_reference
from octavo_torch.kernels.attention_parts import add_sink, attention_arguments, extend, finish
from octavo_torch.kernels.attention_reduce import MAX_SPLITS, attention_reduce
from octavo_torch.kernels.kernel import Kernel
from octavo_torch.kernels.target import target_of
from octavo_torch.kernels.tuning import launch_options
from octavo_torch.plan import TorchPlan

__all__ = ["KERNELS", "attention_decode"]


# A number that changes from step to step is nothing to compile anew for.
@triton.jit(do_not_specialize=["table_stride"])
def _attention_decode(
    q_ptr,  # [tokens, heads, head_dim]
    out_ptr,  # the same, contiguous
    parts_ptr,  # float32[seqs, heads, splits, head_dim], or unused
    stats_ptr,  # float32[seqs, heads, splits, 2]: maximum and denominator, or unused
    k_ptr,  # [num_blocks, kv_heads, block_size, head_dim]
    v_ptr,
    k_scale_ptr,  # float32 [num_blocks, kv_heads, block_size] or [kv_heads], or unused
    v_scale_ptr,
    sinks_ptr,  # [heads], or unused
    table_ptr,  # i32[seqs, blocks]
    query_start_ptr,  # i32[seqs + 1]
    seq_lens_ptr,  # i32[seqs]
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
    CAUSAL: tl.constexpr,  # noqa: ARG001 - the last query sees every key, or all of its window
    HAS_SINKS: tl.constexpr,
    SPLIT: tl.constexpr,
    ROW_TILE: tl.constexpr,
    KEY_TILE: tl.constexpr,
):
    GROUP: tl.constexpr = HEADS // KV_HEADS
    seq = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    token = tl.load(query_start_ptr + seq)
    if tl.load(query_start_ptr + seq + 1) - token != 1:
        return
    seq_len = tl.load(seq_lens_ptr + seq)
    row = tl.arange(0, ROW_TILE)
    head = kv_head * GROUP + row
    is_row = row < GROUP
    dim = tl.arange(0, D_PAD)
    inside = is_row[:, None] & (dim < D)[None, :]
    q_rows = q_ptr + token.to(tl.int64) * q_token_stride + head * q_head_stride
    q = tl.load(q_rows[:, None] + dim[None, :], mask=inside, other=0.0).to(DTYPE)
    if HEAD_SCALES:
        scale *= tl.load(k_scale_ptr + kv_head)

    first_key = 0
    if HAS_WINDOW:
        first_key = tl.maximum(seq_len - window, 0)
    first_tile = first_key // KEY_TILE
    num_tiles = tl.cdiv(seq_len, KEY_TILE) - first_tile
    share = tl.cdiv(num_tiles, tl.num_programs(2))
    start = (first_tile + split * share) * KEY_TILE
    end = tl.minimum(start + share * KEY_TILE, seq_len)
    position = tl.full((ROW_TILE,), 0, tl.int32) + (seq_len - 1)

    table = table_ptr + seq.to(tl.int64) * table_stride
    highest = tl.full((ROW_TILE,), -1e30, tl.float32)
    total = tl.zeros((ROW_TILE,), tl.float32)
    weighted = tl.zeros((ROW_TILE, D_PAD), tl.float32)
    for at in range(start, end, KEY_TILE):
        highest, total, weighted = extend(
            q, highest, total, weighted, position, at, first_key, seq_len,
            k_ptr, v_ptr, k_scale_ptr, v_scale_ptr, table, kv_head, scale, cap, window,
            DTYPE, KIND, NATIVE_FP8, KV_HEADS, BLOCK_SIZE, D, D_PAD, KEY_TILE,
            HAS_CAP, HAS_WINDOW=False, CAUSAL=False, MASKED=True,
        )  # fmt: skip
    if SPLIT:
        if HEAD_SCALES:
            weighted *= tl.load(v_scale_ptr + kv_head)
        part = (seq.to(tl.int64) * HEADS + head) * tl.num_programs(2) + split
        tl.store(stats_ptr + part * 2, highest, mask=is_row)
        tl.store(stats_ptr + part * 2 + 1, total, mask=is_row)
        if start < end:
            tl.store(parts_ptr + part[:, None] * D + dim[None, :], weighted, mask=inside)
    else:
        if HAS_SINKS:
            sink = tl.load(sinks_ptr + head, mask=is_row, other=0.0)
            highest, total, weighted = add_sink(highest, total, weighted, sink)
        attended = finish(total, weighted)
        if HEAD_SCALES:
            attended *= tl.load(v_scale_ptr + kv_head)
        out_rows = out_ptr + (token.to(tl.int64) * HEADS + head) * D
        tl.store(
            out_rows[:, None] + dim[None, :], attended.to(out_ptr.dtype.element_ty), mask=inside
        )


def attention_decode(
    q: torch.Tensor,  # [tokens, heads, head_dim]
    cache: TorchCache,
    plan: TorchPlan,
    params: AttentionParams,
    sinks: torch.Tensor | None = None,  # [heads]
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention [tokens, heads, head_dim] of sequences with one query, other rows left alone."""
    num_tokens, heads, head_dim = q.shape
    out = q.new_empty(q.shape) if out is None else out
    if not num_tokens:
        return out
    q = q if q.stride(2) == 1 else q.contiguous()
    arguments = attention_arguments(q, cache, params)
    kv_heads = cache.k.shape[1]
    options = launch_options(
        "attention_decode",
        q.device,
        head_dim=head_dim,
        block_size=cache.k.shape[2],
        item_bits=arguments["DTYPE"].primitive_bitwidth,
        kv_bits=8 * cache.k.itemsize,
        kv=arguments["KIND"],
    )
    key_tile, waves = options.pop("key_tile"), options.pop("split_waves")
    length = min(plan.max_seq_len, params.window or plan.max_seq_len)
    programs = target_of(q.device).num_units * waves
    splits = _num_splits(length, options.pop("split_tokens"), plan.num_seqs * kv_heads, programs)
    parts, stats = out, out
    if splits > 1:
        shape = (plan.num_seqs, heads, splits)
        parts = q.new_empty((*shape, head_dim), dtype=torch.float32)
        stats = q.new_empty((*shape, 2), dtype=torch.float32)
    _attention_decode[(plan.num_seqs, kv_heads, splits)](
        q_ptr=q, out_ptr=out, parts_ptr=parts, stats_ptr=stats,
        sinks_ptr=q if sinks is None else sinks,
        table_ptr=plan.block_table, query_start_ptr=plan.query_start,
        seq_lens_ptr=plan.seq_lens, table_stride=plan.block_table.stride(0),
        q_token_stride=q.stride(0), q_head_stride=q.stride(1),
        HAS_SINKS=sinks is not None, SPLIT=splits > 1,
        ROW_TILE=max(16, triton.next_power_of_2(heads // kv_heads)), KEY_TILE=key_tile,
        **arguments, **options,
    )  # fmt: skip
    return out if splits == 1 else attention_reduce(parts, stats, plan.query_start, sinks, out)


def _num_splits(length: int, split_tokens: int, num_programs: int, wanted: int) -> int:
    """Shares of a context: enough to give every unit work, none shorter than ``split_tokens``."""
    return max(1, min(-(-wanted // max(1, num_programs)), length // split_tokens, MAX_SPLITS))


KERNELS = (Kernel("attention_decode", attention_decode, attention_reference, DECODE_CASES),)
