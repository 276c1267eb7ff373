"""Rotary embedding in few passes, on float32 arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["rotate"]

Float32 = NDArray[np.float32]


def rotate(x: Float32, cos: Float32, sin: Float32) -> Float32:
    """Rotate features i and i + half of each head; those from 2 * half on pass unchanged.

    x [tokens, heads, head_dim]; cos and sin [tokens, half].
    """
    tokens, heads, head_dim = x.shape
    half = cos.shape[1]
    out = np.empty((tokens, heads, head_dim), np.float32)
    turning, turned = x, out
    if 2 * half < head_dim:
        turning, turned = x[:, :, : 2 * half], out[:, :, : 2 * half]
        out[:, :, 2 * half :] = x[:, :, 2 * half :]
    pairs = turning.reshape(tokens, heads, 2, half)
    rotated = turned.reshape(tokens, heads, 2, half)
    np.multiply(pairs, cos[:, None, None], out=rotated)
    crossed = np.multiply(pairs, sin[:, None, None])
    first, second = rotated[:, :, 0], rotated[:, :, 1]
    np.subtract(first, crossed[:, :, 1], out=first)
    np.add(second, crossed[:, :, 0], out=second)
    return out
