"""What the attention kernels have in common: a tile of cached keys and values, and the softmax.

Scores are kept in base two: they are multiplied by log2(e) and go through exp2. The running maximum
starts finite, so that a row that sees no key gives zeros and no NaN.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

from octavo.api import AttentionParams
from octavo_torch.caches import TorchCache
from octavo_torch.kernels.target import target_of

__all__ = ["LOG2_E", "add_sink", "attention_arguments", "extend", "finish"]

LOG2_E = tl.constexpr(1.4426950408889634)
_NATIVE_FP8 = ("sm89", "sm90", "sm10", "sm11", "sm12", "gfx95", "gfx12")
_TRITON_DTYPES = {
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
}
_KINDS = {torch.float8_e4m3fn: "e4m3", torch.float8_e5m2: "e5m2", torch.int8: "int8"}


@triton.jit
def _numbers(stored, DTYPE: tl.constexpr, KIND: tl.constexpr, NATIVE_FP8: tl.constexpr):
    """What is stored, in DTYPE and without its scale. Every 8-bit code is exact in every DTYPE."""
    if KIND == "e4m3":
        if NATIVE_FP8:
            numbers = stored.to(tl.float8e4nv, bitcast=True).to(DTYPE)
        else:  # its bits are those of the float16 of 2^-8 the size
            bits = stored.to(tl.int16)
            half = ((bits & 0x80) << 8) | ((bits & 0x7F) << 7)
            numbers = (half.to(tl.float16, bitcast=True).to(tl.float32) * 256.0).to(DTYPE)
    elif KIND == "e5m2":  # the upper half of a float16
        numbers = (stored.to(tl.int16) << 8).to(tl.float16, bitcast=True).to(DTYPE)
    elif KIND == "int8":
        numbers = stored.to(tl.float32).to(DTYPE)
    else:
        numbers = stored.to(DTYPE)
    return numbers


@triton.jit
def _load_rows(
    ptr, row, is_key, D: tl.constexpr, D_PAD: tl.constexpr, MASKED: tl.constexpr
):  # fmt: skip
    """[keys, D_PAD] of a cache whose rows are head_dim long; zeros where there is no key."""
    dim = tl.arange(0, D_PAD)
    place = ptr + row[:, None] * D + dim[None, :]
    if MASKED and D_PAD > D:
        tile = tl.load(place, mask=is_key[:, None] & (dim < D)[None, :], other=0)
    elif MASKED:
        tile = tl.load(place, mask=is_key[:, None], other=0)
    elif D_PAD > D:
        tile = tl.load(place, mask=(dim < D)[None, :], other=0)
    else:
        tile = tl.load(place)
    return tile


@triton.jit
def extend(
    q,  # [rows, D_PAD] in DTYPE
    highest,  # float32[rows]: the running maximum
    total,  # float32[rows]: the denominator
    weighted,  # float32[rows, D_PAD]: the numerator
    position,  # [rows]: where each query stands
    start,  # the tile's first key
    first_key,  # keys of the tile before this one, and from end_key on, are nobody's
    end_key,
    k_ptr,
    v_ptr,
    k_scale_ptr,
    v_scale_ptr,
    table_ptr,  # the sequence's row of the block table
    kv_head,
    scale,  # of scores; with a cap, divided by it
    cap,
    window,
    DTYPE: tl.constexpr,
    KIND: tl.constexpr,
    NATIVE_FP8: tl.constexpr,
    KV_HEADS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    KEY_TILE: tl.constexpr,
    HAS_CAP: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    CAUSAL: tl.constexpr,
    MASKED: tl.constexpr,  # whether some query may not see some key
) -> Any:
    """The softmax's state after one more tile of keys."""
    key = start + tl.arange(0, KEY_TILE)
    is_key = (key >= first_key) & (key < end_key)
    if MASKED:
        block = tl.load(table_ptr + key // BLOCK_SIZE, mask=is_key, other=0).to(tl.int64)
    else:
        block = tl.load(table_ptr + key // BLOCK_SIZE).to(tl.int64)
    row = (block * KV_HEADS + kv_head) * BLOCK_SIZE + key % BLOCK_SIZE
    k = _numbers(_load_rows(k_ptr, row, is_key, D, D_PAD, MASKED), DTYPE, KIND, NATIVE_FP8)
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    if KIND == "int8":
        scores *= tl.load(k_scale_ptr + row, mask=is_key, other=0.0)[None, :]
    if HAS_CAP:  # tanh(x) = 1 - 2 / (1 + e^2x)
        scores = cap * (1.0 - 2.0 / (1.0 + tl.exp2(scores * (2.0 * LOG2_E))))
    if MASKED:
        visible = is_key[None, :]
        if CAUSAL:
            visible = visible & (key[None, :] <= position[:, None])
        if HAS_WINDOW:
            visible = visible & (key[None, :] > position[:, None] - window)
            if not CAUSAL:
                visible = visible & (key[None, :] < position[:, None] + window)
        scores = tl.where(visible, scores, float("-inf"))
    above = tl.maximum(highest, tl.max(scores, 1))
    fade = tl.exp2(highest - above)
    weights = tl.exp2(scores - above[:, None])
    total = total * fade + tl.sum(weights, 1)
    stored = _load_rows(v_ptr, row, is_key, D, D_PAD, MASKED)
    if KIND == "int8":
        v_scale = tl.load(v_scale_ptr + row, mask=is_key, other=0.0)
        v = (stored.to(tl.float32) * v_scale[:, None]).to(DTYPE)
    else:
        v = _numbers(stored, DTYPE, KIND, NATIVE_FP8)
    weighted = weighted * fade[:, None]
    weighted = tl.dot(weights.to(DTYPE), v, weighted, input_precision="ieee")
    return above, total, weighted


@triton.jit
def add_sink(highest, total, weighted, sink) -> Any:
    """The state with one more key in each row that scores ``sink`` and has value 0."""
    score = sink.to(tl.float32) * LOG2_E
    above = tl.maximum(highest, score)
    fade = tl.exp2(highest - above)
    return above, total * fade + tl.exp2(score - above), weighted * fade[:, None]


@triton.jit
def finish(total, weighted) -> Any:
    """The attention of each row; zeros where it sees no key."""
    return weighted / tl.where(total > 0.0, total, 1.0)[:, None]


def attention_arguments(
    q: torch.Tensor, cache: TorchCache, params: AttentionParams
) -> dict[str, Any]:
    """What every attention kernel is given by name."""
    kind = _KINDS.get(cache.k.dtype, "plain")
    both = q.dtype if kind != "plain" else torch.promote_types(q.dtype, cache.k.dtype)
    codes = cache.k.dtype.itemsize == 1 and kind != "int8"
    cap, log2_e = params.soft_cap, math.log2(math.e)
    return {
        "k_ptr": cache.k.view(torch.uint8) if codes else cache.k,
        "v_ptr": cache.v.view(torch.uint8) if codes else cache.v,
        "k_scale_ptr": cache.k if cache.k_scale is None else cache.k_scale,
        "v_scale_ptr": cache.v if cache.v_scale is None else cache.v_scale,
        "scale": params.scale / cap if cap else params.scale * log2_e,
        "cap": cap * log2_e if cap else 1.0,
        "window": params.window or 0,
        "DTYPE": _TRITON_DTYPES[both],
        "KIND": kind,
        "NATIVE_FP8": target_of(q.device).arch.startswith(_NATIVE_FP8),
        "HEAD_SCALES": kind != "int8" and cache.k_scale is not None,
        "HEADS": q.shape[1],
        "KV_HEADS": cache.k.shape[1],
        "BLOCK_SIZE": cache.k.shape[2],
        "D": q.shape[2],
        "D_PAD": max(16, triton.next_power_of_2(q.shape[2])),
        "HAS_CAP": bool(cap),
        "HAS_WINDOW": params.window is not None,
        "CAUSAL": params.causal,
    }
