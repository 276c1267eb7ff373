"""Scales as float16, which is how GGUF's blocks hold them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["half_bytes", "halves", "inverses"]

_LARGEST_HALF = np.float32(65504)

Floats: TypeAlias = NDArray[np.float32]


def halves(values: Floats) -> Floats:
    """Rounded to what a float16 holds."""
    bounded = np.clip(values, -_LARGEST_HALF, _LARGEST_HALF)
    return bounded.astype(np.float16).astype(np.float32)


def inverses(scales: Floats) -> Floats:
    """1 / scale, or 0 for a block without spread."""
    return np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)


def half_bytes(values: Floats) -> NDArray[np.uint8]:
    """The float16 of each value, little-endian: uint8[values, 2]."""
    return values.astype("<f2").reshape(-1, 1).view(np.uint8)
