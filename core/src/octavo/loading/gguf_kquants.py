"""Unpacks GGUF's K formats: blocks of 256 weights whose sub-blocks have scales of their own.

Sub-blocks hold 32 weights (Q4_K, Q5_K: scale and minimum of six bits each) or 16 (Q6_K: a signed
byte). See gguf_quants for the calling convention.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["unpack_q4_k", "unpack_q5_k", "unpack_q6_k"]

Blocks: TypeAlias = NDArray[np.uint8]
Weights: TypeAlias = NDArray[np.float32]

_NIBBLE = np.uint8(15)
_FOUR = np.uint8(4)


def _scales_and_minima(blocks: Blocks) -> tuple[Weights, Weights]:
    """float32[blocks, 8, 1] each: the block's two float16 times the sub-blocks' six-bit integers.

    The integers lie in the twelve bytes after the two floats. Sub-blocks 0 to 3 have theirs in the
    low six bits of bytes 0 to 3 (scales) and 4 to 7 (minima). Sub-blocks 4 to 7 have the low four
    bits in bytes 8 to 11 (scales low, minima high) and the upper two at the top of bytes 0 to 7::

        byte 0  ee aaaaaa   a: scale 0, e: top of scale 4       (1 to 3 alike)
        byte 4  ii bbbbbb   b: minimum 0, i: top of minimum 4   (5 to 7 alike)
        byte 8  jjjj ffff   f: rest of scale 4, j: rest of minimum 4
    """
    first, second, third = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    integers = np.empty((2, len(blocks), 8), np.uint8)
    integers[0, :, :4] = first & np.uint8(63)
    integers[1, :, :4] = second & np.uint8(63)
    integers[0, :, 4:] = (third & _NIBBLE) | (first >> np.uint8(6) << _FOUR)
    integers[1, :, 4:] = (third >> _FOUR) | (second >> np.uint8(6) << _FOUR)
    halves = blocks[:, :4].view("<f2").astype(np.float32)
    scales = halves[:, 0:1] * integers[0].astype(np.float32)
    minima = halves[:, 1:2] * integers[1].astype(np.float32)
    return scales[:, :, None], minima[:, :, None]


def _nibbles(packed: Blocks) -> Blocks:
    """uint8[blocks, 4, 2, 32]: each run of 32 bytes holds two sub-blocks, low halves first."""
    runs = np.ascontiguousarray(packed).reshape(-1, 4, 32)
    return np.stack([runs & _NIBBLE, runs >> _FOUR], axis=2)


def unpack_q4_k(blocks: Blocks, out: Weights) -> None:
    """f16 scale, f16 minimum, 12 bytes of sub-block scales, 128 bytes of codes."""
    _unpack_sub_blocks(blocks, _nibbles(blocks[:, 16:]), out)


def unpack_q5_k(blocks: Blocks, out: Weights) -> None:
    """Q4_K, with 32 bytes of fifth bits before the codes: bit i of byte j is for weight 32i + j."""
    fifth_bits = np.unpackbits(blocks[:, 16:48, None], axis=2, bitorder="little")
    codes = _nibbles(blocks[:, 48:]).reshape(-1, 8, 32)
    codes |= fifth_bits.transpose(0, 2, 1) << _FOUR
    _unpack_sub_blocks(blocks, codes, out)


def _unpack_sub_blocks(blocks: Blocks, codes: Blocks, out: Weights) -> None:
    scales, minima = _scales_and_minima(blocks)
    weights = out.reshape(-1, 8, 32)
    weights[...] = codes.reshape(-1, 8, 32)
    weights *= scales
    weights -= minima


def unpack_q6_k(blocks: Blocks, out: Weights) -> None:
    """128 bytes of low halves, 64 bytes of upper bit pairs, 16 signed scales, f16 scale.

    Each half of the block (128 weights) takes 64 bytes of low halves and 32 bytes of pairs: weight
    32i + j has its low four bits in byte (32i + j) % 64, low halves first, and its upper two in
    bits 2i and 2i + 1 of byte j.
    """
    low = np.ascontiguousarray(blocks[:, :128]).reshape(-1, 2, 1, 64)
    codes = np.concatenate([low & _NIBBLE, low >> _FOUR], axis=2).reshape(-1, 2, 4, 32)
    pairs = blocks[:, 128:192].reshape(-1, 2, 1, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(4, 1)
    codes |= (pairs >> shifts & np.uint8(3)) << _FOUR
    scales = blocks[:, 208:210].view("<f2").astype(np.float32) * blocks[:, 192:208].view(np.int8)
    weights = out.reshape(-1, 16, 16)
    weights[...] = (codes.view(np.int8) - np.int8(32)).reshape(-1, 16, 16)
    weights *= scales[:, :, None]
