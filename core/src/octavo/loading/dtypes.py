"""Dtypes by name, and conversion of little-endian file bytes into native arrays."""

from __future__ import annotations

import difflib
import functools
import sys
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from octavo.errors import UsageError

__all__ = ["convert", "numpy_dtype", "view_little_endian"]

_EXTENSION_DTYPES = {
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}

_NATIVE_DTYPES = (
    *("float64", "float32", "float16", "bool"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
)


@functools.cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of a name such as "float32" or "bfloat16", in native byte order."""
    if name in _EXTENSION_DTYPES:
        dtype: np.dtype[Any] = np.dtype(_EXTENSION_DTYPES[name])
        return dtype
    if name in _NATIVE_DTYPES:
        return np.dtype(name)
    known = (*_EXTENSION_DTYPES, *_NATIVE_DTYPES)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UsageError(f"unknown dtype {name!r}{hint} Known: {', '.join(sorted(known))}")


def view_little_endian(raw: NDArray[np.uint8], dtype_name: str) -> NDArray[Any]:
    """``raw`` bytes as a flat array of a dtype; a copy only where the machine or alignment asks.

    Extension dtypes know no byte order, so they are read as unsigned integers of their size.
    """
    dtype = numpy_dtype(dtype_name)
    storage = np.dtype(f"<u{dtype.itemsize}")
    words = raw.view(storage)
    if sys.byteorder == "big" or not words.flags.aligned:
        words = words.astype(storage.newbyteorder("="))
    return words.view(dtype)


def convert(source: NDArray[Any], target: NDArray[Any]) -> None:
    """Write ``source`` into ``target`` of the same shape, converting the dtype."""
    with np.errstate(over="ignore", invalid="ignore"):  # weights beyond the range of float16
        np.copyto(target, source, casting="unsafe")
