"""MLX as the portable ops want it: ``mlx.core``, save for the functions that it has otherwise.

``octavo.ops.arrays`` has the closed list of functions and how each of them is called.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import mlx.core as mx

__all__ = ["arange", "argsort", "asarray", "astype", "set_at", "sort", "sum"]

Indices: TypeAlias = mx.array | tuple[mx.array, mx.array]


def __getattr__(name: str) -> Any:
    """All that is not defined here."""
    return getattr(mx, name)


def arange(stop: int, /, *, dtype: mx.Dtype, device: None) -> mx.array:
    """MLX's arrays are on no device, only what is done with them is: there is nothing to choose."""
    del device
    return mx.arange(stop, dtype=dtype)


def asarray(values: Any, /, *, dtype: mx.Dtype, device: None) -> mx.array:
    """As ``arange``."""
    del device
    return mx.array(values, dtype=dtype)


def astype(x: mx.array, dtype: mx.Dtype, /, *, copy: bool = True) -> mx.array:
    """``copy`` has no meaning where arrays are values that nobody writes to."""
    del copy
    return x.astype(dtype)


def argsort(x: mx.array, /, *, axis: int, stable: bool) -> mx.array:
    """MLX sorts stably in any case."""
    del stable
    return mx.argsort(x, axis=axis)


def sort(x: mx.array, /, *, axis: int, descending: bool) -> mx.array:
    """MLX sorts upwards only."""
    return -mx.sort(-x, axis=axis) if descending else mx.sort(x, axis=axis)


def sum(  # noqa: A001 - the standard's name
    x: mx.array, /, *, axis: int, dtype: mx.Dtype | None = None, keepdims: bool = False
) -> mx.array:
    """MLX adds up in the dtype of its argument."""
    return mx.sum(x if dtype is None else x.astype(dtype), axis=axis, keepdims=keepdims)


def set_at(x: mx.array, place: Indices, values: mx.array, *, copy: bool) -> mx.array:
    """``x[place] = values`` gives ``x`` a new value, and what else holds the old one keeps it.

    Without ``copy`` nothing else does, the caller's name for ``x`` included. So MLX may reuse the
    memory when it comes to compute the new value, which matters where x is a whole KV cache.
    """
    updated = mx.array(x) if copy else x
    updated[place] = values
    return updated
