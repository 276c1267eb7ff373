"""Arrays as the kernels take them: what rows there are, and how far apart."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from octavo.api import BackendError
from octavo_cpu.native.instruction import Opcode
from octavo_cpu.native.rows import Rows, Size, number_of
from octavo_cpu.native.traced import Traced

__all__ = ["Array", "check_rows", "check_shape", "heads_of", "rows_of", "vector"]

Array: TypeAlias = Any
"""A NumPy array, or a Traced one."""


def heads_of(x: Array) -> tuple[Array, tuple[Size, int, int, int, int]]:
    """``x`` of up to three axes, and (outer, inner, dim, stride of outer, stride of inner)."""
    x = _with_dense_axis(x)
    strides = _strides(x)
    match x.shape:
        case (dim,):
            return x, (1, 1, dim, dim, dim)
        case (outer, dim):
            return x, (outer, 1, dim, strides[0], dim)
        case (outer, inner, dim):
            return x, (outer, inner, dim, strides[0], strides[1])
    flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return heads_of(flat)


def rows_of(x: Array) -> tuple[Array, tuple[Size, int, int]]:
    """``x`` with dense rows, and (rows, elements of a row, stride between rows)."""
    if len(x.shape) < 2:
        x = x.reshape(1, math.prod(x.shape))
    if isinstance(x, Traced):
        if not x.has_dense_rows:
            x = x.recording.copy(x)
        return x, (x.shape[0], math.prod(x.shape[1:]), x.strides[0])
    dim = math.prod(x.shape[1:])
    if len(x.shape) != 2 or x.strides[1] != x.itemsize or x.strides[0] < dim * x.itemsize:
        x = np.ascontiguousarray(x)
        return x, (x.shape[0], dim, dim)
    return x, (x.shape[0], dim, x.strides[0] // x.itemsize)


def vector(x: Array, dtype: Any, opcode: Opcode, size: int, name: str) -> Array:
    """A weight of one axis, dense and in the dtype of the activations."""
    if x.shape != (size,):
        raise BackendError(
            f"Op {opcode.name.lower()} was given {name} of shape {x.shape}; expected {(size,)}."
        )
    return x if isinstance(x, Traced) else np.ascontiguousarray(x, dtype)


def check_rows(opcode: Opcode, **rows: Size) -> None:
    """Raise BackendError unless all are the same number of rows."""
    numbers = {number_of(size) for size in rows.values()}
    names = {size.name for size in rows.values() if isinstance(size, Rows)}
    if len(numbers) > 1 or len(names) > 1:
        found = ", ".join(f"{name} {size!r}" for name, size in rows.items())
        raise BackendError(f"Op {opcode.name.lower()} was given arrays of unequal length: {found}.")


def check_shape(opcode: Opcode, what: str, found: Any, expected: Any) -> None:
    """Raise BackendError unless they are equal."""
    if found != expected:
        raise BackendError(
            f"Op {opcode.name.lower()} was given {what} {found}; expected {expected}."
        )


def _with_dense_axis(x: Array) -> Array:
    """The last axis in one piece, and no axis that runs backwards or repeats."""
    if isinstance(x, Traced):
        return x
    is_plain = x.ndim > 0 and x.strides[-1] == x.itemsize and min(x.strides) > 0
    return x if is_plain else np.ascontiguousarray(x)


def _strides(x: Array) -> tuple[int, ...]:
    if isinstance(x, Traced):
        return x.strides
    return tuple(stride // x.itemsize for stride in x.strides)
