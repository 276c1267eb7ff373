"""Softmax in place over the last axis, with sinks and soft-cap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["soft_cap", "softmax"]

Float32 = NDArray[np.float32]


def softmax(scores: Float32, sinks: Float32 | None) -> None:
    """Turn scores into weights, in place. ``sinks`` broadcasts against ``scores[..., :1]``.

    A sink joins the sum and gets no weight. Every row needs a finite score.
    """
    maximum = np.maximum.reduce(scores, axis=-1, keepdims=True)
    if sinks is not None:
        np.maximum(maximum, sinks, out=maximum)
    np.subtract(scores, maximum, out=scores)
    np.exp(scores, out=scores)
    total = np.add.reduce(scores, axis=-1, keepdims=True)
    if sinks is not None:
        total += np.exp(sinks - maximum)
    np.divide(scores, total, out=scores)


def soft_cap(scores: Float32, cap: float) -> None:
    """``cap * tanh(scores / cap)`` in place."""
    np.multiply(scores, np.float32(1.0 / cap), out=scores)
    np.tanh(scores, out=scores)
    np.multiply(scores, np.float32(cap), out=scores)
