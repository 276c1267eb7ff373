"""``+ - *`` of traced arrays, with the results that NumPy's operators have on real ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from octavo_cpu.native.instruction import Opcode
from octavo_cpu.native.rows import Untraceable, number_of

if TYPE_CHECKING:
    from octavo_cpu.native.traced import Traced

__all__ = ["combine"]


def combine(opcode: Opcode, x: Traced, other: Any) -> Traced:
    """``x`` with an array of its shape, with one row for all, or with a number."""
    if not x.has_dense_rows:
        x = x.recording.copy(x)
    dim = math.prod(x.shape[1:])
    scalars: tuple[float, ...] = ()
    other_stride = 0
    if isinstance(other, int | float):
        scalars = (float(x.dtype.type(other)),)  # a number takes the array's dtype, as in NumPy
        other = None
    else:
        other, other_stride = _second(x, other)
    out = x.recording.new(x.shape, x.dtype)
    sizes = (x.shape[0], dim, x.strides[0], other_stride)
    x.recording.emit(opcode, x.dtype, (x, other, out), sizes, scalars)
    return out


def _second(x: Traced, other: Any) -> tuple[Any, int]:
    """The second operand with dense rows, and the stride between them: 0 if there is one only."""
    if getattr(other, "shape", None) is None or other.dtype != x.dtype:
        raise Untraceable(f"an array of {x.dtype} was combined with {type(other).__name__}")
    if isinstance(other, np.ndarray) and other.shape == x.shape[1:]:
        return np.ascontiguousarray(other), 0
    same_rows = len(other.shape) == len(x.shape) and other.shape[1:] == x.shape[1:]
    if isinstance(other, np.ndarray) or not same_rows or not _same_size(x, other):
        raise Untraceable(f"arrays of {x.shape} and {other.shape} were combined")
    if not other.has_dense_rows:
        other = other.recording.copy(other)
    return other, other.strides[0]


def _same_size(x: Traced, other: Traced) -> bool:
    own, others = x.shape[0], other.shape[0]
    names = [getattr(size, "name", None) for size in (own, others)] if own is not others else []
    return number_of(own) == number_of(others) and len(set(names)) <= 1
