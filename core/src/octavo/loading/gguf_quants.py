"""GGUF's weight formats: how many weights a block holds, and its unpacking into float32.

A quantised row is a run of blocks; each block holds a few scales and its weights' codes. The
layouts are those of ggml-common.h. Each unpack function takes ``blocks`` uint8[blocks, block_bytes]
and fills ``out`` float32[blocks, block_size]; it rounds where ggml's own code rounds, so that the
results agree bit for bit.

Callers pass a few thousand blocks at a time, so that the temporaries stay in the processor's cache.
Arithmetic on codes is bytewise, which is the same on little- and big-endian machines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from octavo.loading.gguf_kquants import unpack_q4_k, unpack_q5_k, unpack_q6_k

__all__ = ["QUANT_TYPES", "QuantType", "group_size"]

Blocks: TypeAlias = NDArray[np.uint8]
Weights: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class QuantType:
    """One weight format; ``dtype`` names it as TensorSource.dtype does."""

    name: str
    dtype: str
    block_size: int  # weights per block
    block_bytes: int
    unpack: Callable[[Blocks, Weights], None]

    @property
    def is_quantized(self) -> bool:
        """False for plain floating-point formats."""
        return self.block_size > 1


def _unpack_f32(blocks: Blocks, out: Weights) -> None:
    out[...] = blocks.view("<f4")


def _unpack_f16(blocks: Blocks, out: Weights) -> None:
    out[...] = blocks.view("<f2")


def _unpack_bf16(blocks: Blocks, out: Weights) -> None:
    np.left_shift(blocks.view("<u2"), np.uint32(16), out=out.view(np.uint32), dtype=np.uint32)


def _scale(blocks: Blocks, byte: int) -> Weights:
    """The float16 at a byte of each block, as float32[blocks, 1]."""
    return blocks[:, byte : byte + 2].view("<f2").astype(np.float32)


def _nibbles(packed: Blocks) -> Blocks:
    """uint8[blocks, 2 * bytes]: the low halves of all bytes, then the high halves."""
    packed = np.ascontiguousarray(packed)
    low_high = np.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=1)
    return low_high.reshape(len(packed), -1)


def _add_fifth_bits(codes: Blocks, packed_bits: Blocks) -> None:
    """Bit i of 32 packed bits is worth 16 in code i."""
    bits = np.unpackbits(packed_bits, axis=1, bitorder="little")
    codes |= bits << np.uint8(4)


def _unpack_q4_0(blocks: Blocks, out: Weights) -> None:
    out[...] = _nibbles(blocks[:, 2:]).view(np.int8) - np.int8(8)
    out *= _scale(blocks, 0)


def _unpack_q4_1(blocks: Blocks, out: Weights) -> None:
    out[...] = _nibbles(blocks[:, 4:])
    out *= _scale(blocks, 0)
    out += _scale(blocks, 2)


def _unpack_q5_0(blocks: Blocks, out: Weights) -> None:
    codes = _nibbles(blocks[:, 6:])
    _add_fifth_bits(codes, blocks[:, 2:6])
    out[...] = codes.view(np.int8) - np.int8(16)
    out *= _scale(blocks, 0)


def _unpack_q5_1(blocks: Blocks, out: Weights) -> None:
    codes = _nibbles(blocks[:, 8:])
    _add_fifth_bits(codes, blocks[:, 4:8])
    out[...] = codes
    out *= _scale(blocks, 0)
    out += _scale(blocks, 2)


def _unpack_q8_0(blocks: Blocks, out: Weights) -> None:
    out[...] = blocks[:, 2:].view(np.int8)
    out *= _scale(blocks, 0)


QUANT_TYPES = {
    0: QuantType("F32", "float32", 1, 4, _unpack_f32),
    1: QuantType("F16", "float16", 1, 2, _unpack_f16),
    30: QuantType("BF16", "bfloat16", 1, 2, _unpack_bf16),
    2: QuantType("Q4_0", "gguf:Q4_0", 32, 18, _unpack_q4_0),
    3: QuantType("Q4_1", "gguf:Q4_1", 32, 20, _unpack_q4_1),
    6: QuantType("Q5_0", "gguf:Q5_0", 32, 22, _unpack_q5_0),
    7: QuantType("Q5_1", "gguf:Q5_1", 32, 24, _unpack_q5_1),
    8: QuantType("Q8_0", "gguf:Q8_0", 32, 34, _unpack_q8_0),
    12: QuantType("Q4_K", "gguf:Q4_K", 256, 144, unpack_q4_k),
    13: QuantType("Q5_K", "gguf:Q5_K", 256, 176, unpack_q5_k),
    14: QuantType("Q6_K", "gguf:Q6_K", 256, 210, unpack_q6_k),
}
"""The supported formats by ggml's type number."""


def group_size(scheme: str) -> int:
    """Weights in a row that are packed together; 1 for what is not packed."""
    sizes = (kind.block_size for kind in QUANT_TYPES.values() if kind.dtype == scheme)
    return next(sizes, 1)
