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

try:
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:  # before Triton 3.4
    TensorDescriptor = None

__all__ = ["LOG2_E", "add_sink", "attention_arguments", "extend", "finish", "tiles_of"]

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
    ptr, row, is_key, first_dim, D: tl.constexpr, WIDTH: tl.constexpr, MASKED: tl.constexpr
):  # fmt: skip
    """[keys, WIDTH] of a cache whose rows are D long; zeros where there is no key."""
    dim = first_dim + tl.arange(0, WIDTH)
    place = ptr + row[:, None] * D + dim[None, :]
    if MASKED and D % WIDTH != 0:
        tile = tl.load(place, mask=is_key[:, None] & (dim < D)[None, :], other=0)
    elif MASKED:
        tile = tl.load(place, mask=is_key[:, None], other=0)
    elif D % WIDTH != 0:
        tile = tl.load(place, mask=(dim < D)[None, :], other=0)
    else:
        tile = tl.load(place)
    return tile


@triton.jit
def _places(
    key,
    start,  # the first of them
    is_key,
    table_ptr,
    kv_head,
    KV_HEADS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    MASKED: tl.constexpr,
    TILE_LOADS: tl.constexpr,
):
    """Where keys are, in rows of the cache: each one, and the first of a tile within one block."""
    if TILE_LOADS:  # some key of the tile is somebody's, so the block is
        block = tl.load(table_ptr + start // BLOCK_SIZE)
    elif MASKED:
        block = tl.load(table_ptr + key // BLOCK_SIZE, mask=is_key, other=0).to(tl.int64)
    else:
        block = tl.load(table_ptr + key // BLOCK_SIZE).to(tl.int64)
    first_of_block = (block * KV_HEADS + kv_head) * BLOCK_SIZE
    return first_of_block + key % BLOCK_SIZE, first_of_block + start % BLOCK_SIZE


@triton.jit
def _products(
    q,  # [rows, D_PAD], or pointers [rows]
    row,  # [keys]: where each key is, in rows of the cache
    first_row,  # where the first is
    is_key,
    k_ptr,
    DTYPE: tl.constexpr,
    KIND: tl.constexpr,
    NATIVE_FP8: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    KEY_TILE: tl.constexpr,
    MASKED: tl.constexpr,
    TILE_LOADS: tl.constexpr,
    DIM_TILE: tl.constexpr,
):
    """Each query with each key, float32 [rows, keys]; of what is no key, anything."""
    if DIM_TILE < D_PAD:
        products = tl.zeros((q.shape[0], KEY_TILE), tl.float32)
        for first_dim in range(0, D, DIM_TILE):
            dim = first_dim + tl.arange(0, DIM_TILE)
            part = tl.load(q[:, None] + dim[None, :], mask=(dim < D)[None, :], other=0).to(DTYPE)
            stored = _load_rows(k_ptr, row, is_key, first_dim, D, DIM_TILE, MASKED)
            k = _numbers(stored, DTYPE, KIND, NATIVE_FP8)
            products = tl.dot(part, tl.trans(k), products, input_precision="ieee")
    else:
        if TILE_LOADS:
            stored = k_ptr.load([first_row, 0])
        else:
            stored = _load_rows(k_ptr, row, is_key, 0, D, D_PAD, MASKED)
        k = _numbers(stored, DTYPE, KIND, NATIVE_FP8)
        products = tl.dot(q, tl.trans(k), input_precision="ieee")
    return products


@triton.jit
def extend(
    q,  # [rows, D_PAD] in DTYPE; with a smaller DIM_TILE, pointers to the rows
    highest,  # float32[rows]: the running maximum
    total,  # float32[rows]: the denominator
    weighted,  # float32[rows, D_PAD]: the numerator
    position,  # [rows]: where each query stands
    start,  # the tile's first key
    first_key,  # keys of the tile before this one, and from end_key on, are nobody's
    end_key,
    k_ptr,  # with TILE_LOADS both are descriptors of tiles
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
    TILE_LOADS: tl.constexpr = False,  # a tile lies within one block and is loaded as a whole
    DIM_TILE: tl.constexpr = 1 << 30,  # numbers of a row that are in registers at once, for scores
) -> Any:
    """The softmax's state after one more tile of keys."""
    key = start + tl.arange(0, KEY_TILE)
    is_key = (key >= first_key) & (key < end_key)
    row, first_row = _places(
        key, start, is_key, table_ptr, kv_head, KV_HEADS, BLOCK_SIZE, MASKED, TILE_LOADS
    )
    scores = scale * _products(
        q, row, first_row, is_key, k_ptr,
        DTYPE, KIND, NATIVE_FP8, D, D_PAD, KEY_TILE, MASKED, TILE_LOADS, DIM_TILE,
    )  # fmt: skip
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
    if TILE_LOADS:
        stored = v_ptr.load([first_row, 0])
    else:
        stored = _load_rows(v_ptr, row, is_key, 0, D, D_PAD, MASKED)
    if KIND == "int8":
        v_scale = tl.load(v_scale_ptr + row, mask=is_key, other=0.0)
        v = (stored.to(tl.float32) * v_scale[:, None]).to(DTYPE)
    else:
        v = _numbers(stored, DTYPE, KIND, NATIVE_FP8)
    if TILE_LOADS and MASKED:  # a weight of zero does not undo a NaN
        v = tl.where(is_key[:, None], v, 0.0)
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


def tiles_of(cache: TorchCache, key_tile: int) -> dict[str, Any] | None:
    """``k_ptr`` and ``v_ptr`` by which a kernel loads ``key_tile`` keys of one head at once.

    None where that cannot be: a tile must lie within one block, rows must begin at multiples of 16
    bytes, their number must fit in 31 bits, and Triton must be 3.4 or newer.
    """
    num_blocks, kv_heads, block_size, head_dim = cache.k.shape
    num_rows = num_blocks * kv_heads * block_size
    fits = block_size % key_tile == 0 and 0 < num_rows < 1 << 31
    aligned = [
        head_dim * values.itemsize % 16 == 0
        and values.is_contiguous()
        and values.data_ptr() % 16 == 0
        for values in (cache.k, cache.v)
    ]
    if TensorDescriptor is None or not fits or not all(aligned):
        return None
    tile = [key_tile, max(16, triton.next_power_of_2(head_dim))]
    arguments = {}
    for name, values in (("k_ptr", cache.k), ("v_ptr", cache.v)):
        is_float8 = values.dtype.is_floating_point and values.itemsize == 1
        codes = values.view(torch.uint8) if is_float8 else values
        arguments[name] = TensorDescriptor(codes, [num_rows, head_dim], [head_dim, 1], tile)
    return arguments
