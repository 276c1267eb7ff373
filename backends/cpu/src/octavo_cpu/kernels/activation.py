"""Gated activations in few passes, over tiles of rows that stay in the core's cache."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["gelu_mul", "silu_mul"]

Float32 = NDArray[np.float32]

_TILE_ELEMENTS = 1 << 16  # of gate: 256 KiB, as much again of up and of the result


def silu_mul(gate_up: Float32) -> Float32:
    """``silu(gate) * up``, with ``silu(x) = h + h * tanh(h)`` for ``h = x / 2``: no overflow."""
    rows, two_inner = gate_up.shape
    inner = two_inner // 2
    out = np.empty((rows, inner), np.float32)
    tile = max(1, _TILE_ELEMENTS // inner)
    for start in range(0, rows, tile):
        _silu_mul_tile(
            gate_up[start : start + tile, :inner],
            gate_up[start : start + tile, inner:],
            out[start : start + tile],
        )
    return out


def _silu_mul_tile(gate: Float32, up: Float32, out: Float32) -> None:
    half = np.multiply(gate, np.float32(0.5))
    np.tanh(half, out=out)
    np.multiply(out, half, out=out)
    np.add(out, half, out=out)
    np.multiply(out, up, out=out)


def gelu_mul(gate_up: Float32) -> Float32:
    """``gelu(gate) * up`` in the tanh approximation."""
    rows, two_inner = gate_up.shape
    inner = two_inner // 2
    out = np.empty((rows, inner), np.float32)
    tile = max(1, _TILE_ELEMENTS // inner)
    for start in range(0, rows, tile):
        _gelu_mul_tile(
            gate_up[start : start + tile, :inner],
            gate_up[start : start + tile, inner:],
            out[start : start + tile],
        )
    return out


def _gelu_mul_tile(gate: Float32, up: Float32, out: Float32) -> None:
    np.multiply(gate, gate, out=out)
    np.multiply(out, np.float32(0.044715 * math.sqrt(2.0 / math.pi)), out=out)
    np.add(out, np.float32(math.sqrt(2.0 / math.pi)), out=out)
    np.multiply(out, gate, out=out)
    np.tanh(out, out=out)
    np.add(out, np.float32(1.0), out=out)
    np.multiply(out, gate, out=out)
    np.multiply(out, np.float32(0.5), out=out)
    np.multiply(out, up, out=out)
