"""How numbers are stored in a cache: rounded, saturated, or as codes with a scale."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from octavo_torch.caches import TorchCache

__all__ = ["cache_arguments", "store_rows", "stored_reference"]

_KINDS = {torch.float8_e4m3fn: "e4m3", torch.float8_e5m2: "e5m2", torch.int8: "int8"}
_LARGEST = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0}


@triton.jit
def _float8_codes(x, MANTISSA: tl.constexpr, BIAS: tl.constexpr, LARGEST: tl.constexpr):
    """float32 as float8 bits, to nearest even and saturated; by its bits, alike on every device."""
    size = tl.minimum(tl.abs(x), LARGEST)
    bits = size.to(tl.int32, bitcast=True)
    DROPPED: tl.constexpr = 23 - MANTISSA
    rounded = bits + ((1 << (DROPPED - 1)) - 1) + ((bits >> DROPPED) & 1)
    normal = (rounded >> DROPPED) - ((127 - BIAS) << MANTISSA)
    # Below the normal numbers: an addition whose sum has the spacing of these rounds.
    UNIT: tl.constexpr = 2.0 ** (24 - BIAS - MANTISSA)
    small = (size + UNIT).to(tl.int32, bitcast=True) - ((151 - BIAS - MANTISSA) << 23)
    code = tl.where(size < 2.0 ** (1 - BIAS), small, normal)
    return (code | ((x.to(tl.int32, bitcast=True) >> 24) & 0x80)).to(tl.uint8)


@triton.jit
def store_rows(
    x,  # float32[heads, D_PAD], rounded to the step's dtype; zeros beyond head_dim
    ptr,  # the cache
    scale_ptr,  # its scales, or unused
    head,  # [heads]
    slot,
    inside,  # [heads, D_PAD]
    KIND: tl.constexpr,
    HEAD_SCALES: tl.constexpr,
    KV_HEADS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
) -> None:
    """Write one token's heads to its slot."""
    block = (slot // BLOCK_SIZE).to(tl.int64)
    row = (block * KV_HEADS + head) * BLOCK_SIZE + slot % BLOCK_SIZE
    place = ptr + row[:, None] * D + tl.arange(0, D_PAD)[None, :]
    is_head = head < KV_HEADS
    if HEAD_SCALES:
        x = x / tl.load(scale_ptr + head, mask=is_head, other=1.0)[:, None]
    if KIND == "int8":
        scale = tl.max(tl.abs(x), 1) / 127.0
        tl.store(scale_ptr + row, scale, mask=is_head)
        codes = x / tl.where(scale > 0.0, scale, 1.0)[:, None]
        codes = codes + 12582912.0 - 12582912.0  # to nearest even: the first sum has no fractions
        tl.store(place, tl.minimum(tl.maximum(codes, -127.0), 127.0).to(tl.int8), mask=inside)
    elif KIND == "e4m3":
        tl.store(place, _float8_codes(x, 3, 7, 448.0), mask=inside)
    elif KIND == "e5m2":
        tl.store(place, _float8_codes(x, 2, 15, 57344.0), mask=inside)
    else:
        tl.store(place, x.to(ptr.dtype.element_ty), mask=inside)


def cache_arguments(cache: TorchCache) -> dict[str, Any]:
    """What a kernel that writes to the cache is given by name."""
    kind = _KINDS.get(cache.k.dtype, "plain")
    codes = cache.k.dtype in _LARGEST
    return {
        "k_cache_ptr": cache.k.view(torch.uint8) if codes else cache.k,
        "v_cache_ptr": cache.v.view(torch.uint8) if codes else cache.v,
        "k_scale_ptr": cache.k if cache.k_scale is None else cache.k_scale,
        "v_scale_ptr": cache.v if cache.v_scale is None else cache.v_scale,
        "KIND": kind,
        "HEAD_SCALES": kind != "int8" and cache.k_scale is not None,
        "KV_HEADS": cache.k.shape[1],
        "BLOCK_SIZE": cache.k.shape[2],
        "D": cache.k.shape[3],
        "D_PAD": triton.next_power_of_2(cache.k.shape[3]),
    }


def stored_reference(
    cache: TorchCache, k: torch.Tensor, v: torch.Tensor, slots: torch.Tensor
) -> TorchCache:
    """The cache after the tokens are written, in plain torch; a new one."""
    new_k, k_scale = _stored(cache.k, cache.k_scale, k, slots.long())
    new_v, v_scale = _stored(cache.v, cache.v_scale, v, slots.long())
    return TorchCache(new_k, new_v, k_scale, v_scale)


def _stored(
    stored: torch.Tensor, scale: torch.Tensor | None, x: torch.Tensor, slots: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    place = (slots // stored.shape[2], slice(None), slots % stored.shape[2])
    numbers = x.float()
    if scale is not None and scale.ndim == 1:
        numbers = numbers / scale[:, None]
    elif scale is not None:
        per_token = numbers.abs().amax(-1) / 127
        scale = scale.clone()
        scale[place] = per_token
        numbers = numbers / torch.where(per_token > 0, per_token, 1.0)[..., None]
        numbers = numbers.round()
    if stored.dtype in _LARGEST:
        numbers = numbers.clamp(-_LARGEST[stored.dtype], _LARGEST[stored.dtype])
    bits = torch.uint8 if stored.dtype in _LARGEST else stored.dtype
    after = stored.clone()
    after.view(bits)[place] = numbers.to(stored.dtype).view(bits)
    return after, scale
