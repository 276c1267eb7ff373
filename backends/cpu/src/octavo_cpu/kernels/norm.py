"""Normalisation over the last axis in few passes, on float32 arrays."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["layer_norm", "rms_norm"]

Float32 = NDArray[np.float32]


def rms_norm(x: Float32, weight: Float32, eps: float) -> Float32:
    """``x / sqrt(mean(x²) + eps) * weight``: one pass for the sums, two for the product."""
    rows: Float32 = x.reshape(-1, x.shape[-1])
    scale: Float32 | float
    if len(rows) == 1:  # a single token: Python's arithmetic beats four calls on one number
        scale = 1.0 / math.sqrt(float(np.dot(rows[0], rows[0])) / rows.shape[1] + eps)
    else:
        scale = _square_sums(rows)
        scale /= rows.shape[1]
        scale += eps
        np.sqrt(scale, out=scale)
        np.reciprocal(scale, out=scale)
    normalised: Float32 = np.multiply(rows, scale)
    np.multiply(normalised, weight, out=normalised)
    return normalised.reshape(x.shape)


def layer_norm(x: Float32, weight: Float32, bias: Float32 | None, eps: float) -> Float32:
    """Mean and variance normalisation."""
    rows = x.reshape(-1, x.shape[-1])
    centred: Float32 = rows - rows.mean(axis=-1, keepdims=True)
    scale = _square_sums(centred)
    scale /= rows.shape[1]
    scale += eps
    np.sqrt(scale, out=scale)
    np.divide(centred, scale, out=centred)
    np.multiply(centred, weight, out=centred)
    if bias is not None:
        np.add(centred, bias, out=centred)
    return centred.reshape(x.shape)


def _square_sums(rows: Float32) -> Float32:
    """[rows, 1]: each row's dot product with itself, without an array of squares."""
    sums: Float32 = np.matmul(rows[:, None, :], rows[:, :, None])
    return sums[:, 0]
