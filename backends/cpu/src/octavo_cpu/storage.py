"""Prepared weights and caches of the NumPy backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NumpyCache", "NumpyLinear", "dtype_named", "saturated"]


def dtype_named(name: str) -> np.dtype[Any]:
    """A dtype by name, those that only ml_dtypes brings included."""
    if hasattr(np, name):
        return np.dtype(name)
    import ml_dtypes

    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return dtype


def saturated(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[np.float32]:
    """Within the range of an 8-bit float, whose cast makes NaN or infinity of what is beyond."""
    import ml_dtypes

    finfo: Any = ml_dtypes.finfo  # untyped
    largest = np.float32(finfo(dtype).max)
    values: NDArray[np.float32] = array.astype(np.float32)
    return np.clip(values, -largest, largest, out=values)


@dataclass(frozen=True)
class NumpyLinear:
    """A weight as BLAS likes it: float32 whatever the compute dtype, inputs along the rows.

    Against [out, in] that is up to 1.5 times as fast from 4 to 32 rows of input, and equal for one
    row. A tied embedding is shared, and therefore the transposed view of an [out, in] array.
    """

    matrix: NDArray[np.float32]  # [in_features, out_features]
    bias: NDArray[np.float32] | None  # [out_features]


@dataclass(frozen=True)
class NumpyCache:
    """One layer's keys and values, slot after slot: a run of blocks is a matrix per head."""

    k: NDArray[Any]  # [num_blocks, block_size, kv_heads, head_dim]
    v: NDArray[Any]
