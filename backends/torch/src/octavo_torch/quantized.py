"""Packed weights on a torch device: GGUF's blocks, rearranged into codes and scales.

``multiply_unpacked`` serves every device; GPUs have a kernel (``kernels/quantized_matmul.py``),
which reads the same arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from octavo.api import BackendError, QuantizedTensor, step_tree

__all__ = ["QUANTIZATION", "Codes", "QuantizedLinear", "multiply_unpacked", "prepare", "unpacked"]

Codes: TypeAlias = Literal["int4", "int8", "fp8"]
Bytes: TypeAlias = NDArray[np.uint8]

_UNPACKED_BYTES = 4 << 20  # of float32, at a time: it stays in a processor's cache


@step_tree(static=("kind", "zero"))
@dataclass(frozen=True)
class QuantizedLinear:
    """A weight is ``(code - zero) * scale + offset``; groups of a row share scale and offset.

    Where there are factors, scales and offsets are integers, to be multiplied by them; several
    groups share a factor.
    Codes of int4 lie two to a byte: 16 bytes hold 32 weights, the first 16 in their low halves.
    """

    codes: torch.Tensor  # uint8[out_features, in_features]; int4 [out_features, in_features / 2]
    scales: torch.Tensor  # [out_features, groups]
    offsets: torch.Tensor | None  # as scales
    factors: torch.Tensor | None  # float16[2, out_features, …]: of scales, then of offsets
    bias: torch.Tensor | None  # [out_features]
    kind: Codes
    zero: int


@dataclass(frozen=True)
class _Parts:
    """The same of some blocks, on the host; factors [2, blocks]."""

    codes: Bytes
    scales: NDArray[Any]
    offsets: NDArray[Any] | None
    kind: Codes
    zero: int
    factors: NDArray[np.float16] | None = None


def prepare(
    weight: QuantizedTensor,
    bias: NDArray[Any] | None,
    dtype: str,
    put: Callable[..., torch.Tensor],
) -> QuantizedLinear:
    """Rearranged on the host and moved with ``put``; nothing is rounded, save the bias."""
    if weight.scheme not in _SCHEMES:
        raise BackendError(
            f"This backend was handed a weight packed as {weight.scheme}; it takes "
            f"{', '.join(_SCHEMES)}."
        )
    out_features = weight.shape[0]
    split, block_bytes = _SCHEMES[weight.scheme]
    parts = split(weight.data.reshape(-1, block_bytes))

    def rows(array: NDArray[Any]) -> torch.Tensor:
        return put(np.ascontiguousarray(array).reshape(out_features, -1))

    factors = parts.factors
    return QuantizedLinear(
        rows(parts.codes),
        rows(parts.scales),
        None if parts.offsets is None else rows(parts.offsets),
        None if factors is None else put(factors.reshape(2, out_features, -1)),
        None if bias is None else put(bias, dtype),
        parts.kind,
        parts.zero,
    )


def unpacked(
    codes: torch.Tensor,
    scales: torch.Tensor,
    offsets: torch.Tensor | None,
    factors: torch.Tensor | None,
    *,
    kind: Codes,
    zero: int,
) -> torch.Tensor:
    """The weight in float32 [out_features, in_features]."""
    out_features, groups = scales.shape
    if kind == "int4":
        pairs = codes.view(out_features, -1, 1, 16)
        codes = torch.cat([pairs & 15, pairs >> 4], 2)
    values = (codes.view(torch.float8_e4m3fn) if kind == "fp8" else codes).float() - zero
    weight = values.view(out_features, groups, -1) * _float(scales, factors, 0)[:, :, None]
    if offsets is not None:
        weight += _float(offsets, factors, 1)[:, :, None]
    return weight.view(out_features, -1)


def _float(groups: torch.Tensor, factors: torch.Tensor | None, which: int) -> torch.Tensor:
    if factors is None:
        return groups.float()
    each = groups.shape[1] // factors.shape[2]
    return groups.float() * factors[which].float().repeat_interleave(each, 1)


def multiply_unpacked(x: torch.Tensor, weight: QuantizedLinear) -> torch.Tensor:
    """``x @ weight.T + bias``: the weight is unpacked a piece at a time, in every call."""
    out_features = len(weight.codes)
    piece = max(1, _UNPACKED_BYTES // (4 * x.shape[1]))
    product = torch.empty(len(x), out_features, dtype=torch.float32, device=x.device)
    x32 = x.float()
    for start in range(0, out_features, piece):
        rows = slice(start, start + piece)
        part = unpacked(
            weight.codes[rows],
            weight.scales[rows],
            None if weight.offsets is None else weight.offsets[rows],
            None if weight.factors is None else weight.factors[:, rows],
            kind=weight.kind,
            zero=weight.zero,
        )
        torch.matmul(x32, part.T, out=product[:, rows])
    if weight.bias is not None:
        product += weight.bias.float()
    return product.to(x.dtype)


def _half(blocks: Bytes, byte: int) -> NDArray[np.float16]:
    """The little-endian float16 at a byte of each block."""
    stored = np.ascontiguousarray(blocks[:, byte : byte + 2]).view("<f2")
    return stored.astype(np.float16)


def _q4_0(blocks: Bytes) -> _Parts:
    return _Parts(blocks[:, 2:], _half(blocks, 0), None, "int4", 8)


def _q4_1(blocks: Bytes) -> _Parts:
    return _Parts(blocks[:, 4:], _half(blocks, 0), _half(blocks, 2), "int4", 0)


def _q8_0(blocks: Bytes) -> _Parts:
    return _Parts(blocks[:, 2:] ^ np.uint8(128), _half(blocks, 0), None, "int8", 128)


def _q4_k(blocks: Bytes) -> _Parts:
    """Scales and minima of six bits, times two float16 of the block of 256.

    Of 32 bytes, the low halves are one group of 32 weights and the high halves the next.
    """
    first, second, third = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    six, four, two = np.uint8(63), np.uint8(4), np.uint8(6)
    scales = np.concatenate([first & six, (third & np.uint8(15)) | (first >> two << four)], axis=1)
    minima = np.concatenate([second & six, (third >> four) | (second >> two << four)], axis=1)
    runs = np.ascontiguousarray(blocks[:, 16:]).reshape(-1, 4, 1, 2, 16)  # run, group, half, byte
    codes = np.concatenate([runs & np.uint8(15), runs >> four], axis=2)
    packed = codes[:, :, :, 0] | codes[:, :, :, 1] << four
    factors = np.stack([_half(blocks, 0), -_half(blocks, 2)])
    return _Parts(packed, scales, minima, "int4", 0, factors)


def _q6_k(blocks: Bytes) -> _Parts:
    """Codes of six bits take a byte each; scales of eight bits times a float16.

    Each 128 weights: 64 bytes of low halves, and 32 of upper pairs, four to a byte.
    """
    low = np.ascontiguousarray(blocks[:, :128]).reshape(-1, 2, 1, 64)
    codes = np.concatenate([low & np.uint8(15), low >> np.uint8(4)], axis=2).reshape(-1, 2, 4, 32)
    pairs = np.ascontiguousarray(blocks[:, 128:192]).reshape(-1, 2, 1, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(4, 1)
    codes |= (pairs >> shifts & np.uint8(3)) << np.uint8(4)
    signed = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    factors = np.stack([_half(blocks, 208)] * 2)
    return _Parts(codes, signed, None, "int8", 32, factors)


# How a scheme's blocks come apart, and their size in bytes.
_SCHEMES: Mapping[str, tuple[Callable[[Bytes], _Parts], int]] = {
    "gguf:Q4_0": (_q4_0, 18),
    "gguf:Q4_1": (_q4_1, 20),
    "gguf:Q8_0": (_q8_0, 34),
    "gguf:Q4_K": (_q4_k, 144),
    "gguf:Q6_K": (_q6_k, 210),
}

QUANTIZATION = tuple(_SCHEMES)
"""The packed weights that are multiplied as they are."""
