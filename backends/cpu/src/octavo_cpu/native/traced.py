"""An array that is not there yet: what model code handles while its step is recorded."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from octavo_cpu.native.arithmetic import combine
from octavo_cpu.native.instruction import Opcode
from octavo_cpu.native.rows import Rows, Size, Untraceable, number_of

if TYPE_CHECKING:
    from octavo_cpu.native.recording import Buffer, Recording

__all__ = ["Traced"]


@dataclass(frozen=True, eq=False)
class Traced:
    """A view of a buffer; strides and the offset are in elements, and the last axis is dense.

    Only the first axis may have a number of rows that differs from step to step.
    """

    recording: Recording
    buffer: Buffer
    shape: tuple[Any, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int = 0

    # NumPy must not take a traced array for a sequence of numbers.
    __array_ufunc__ = None

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise Untraceable("NumPy asked for the numbers of an array")

    def __getattr__(self, name: str) -> NoReturn:
        raise Untraceable(f"{name!r} of an array was asked for")

    def __len__(self) -> int:
        return operator.index(self.shape[0])

    def __iter__(self) -> NoReturn:
        raise Untraceable("an array was iterated over")

    def __bool__(self) -> NoReturn:
        raise Untraceable("a branch depends on the numbers of an array")

    def __eq__(self, other: object) -> NoReturn:
        raise Untraceable("the numbers of an array were compared")

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Any) -> Any:
        return combine(Opcode.ADD, self, other)

    def __sub__(self, other: Any) -> Any:
        return combine(Opcode.SUBTRACT, self, other)

    def __mul__(self, other: Any) -> Any:
        return combine(Opcode.MULTIPLY, self, other)

    __radd__ = __add__
    __rmul__ = __mul__

    @property
    def is_dense(self) -> bool:
        """Whether rows follow each other without gaps."""
        return self.strides[:1] in ((), (_count(self.shape[1:]),))

    @property
    def has_dense_rows(self) -> bool:
        """Whether each row (all axes but the first) lies in one piece."""
        return self.strides[1:] == dense_strides(self.shape)[1:]

    def reshape(self, *shape: Any) -> Traced:
        """The same numbers in another shape; the open number of rows stays in front."""
        if len(shape) == 1 and isinstance(shape[0], Sequence):
            shape = tuple(shape[0])
        shape = self._resolved(shape)
        if not self.has_dense_rows:
            return self.recording.copy(self).reshape(*shape)
        if not self.shape or shape[0] is not self.shape[0]:
            for size in self.shape[:1]:
                operator.index(size)  # a plain number, or rows cut or joined: it holds for this one
        keeps_rows = _count(shape[1:]) == _count(self.shape[1:])
        if number_of(shape[0]) != _count(self.shape[:1]) or not keeps_rows:
            if not self.is_dense:
                return self.recording.copy(self).reshape(*shape)
            return self._view(shape, dense_strides(shape), self.offset)
        strides = (*self.strides[:1], *dense_strides(shape)[1:])
        return self._view(shape, strides, self.offset)

    def _resolved(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """With -1 filled in; BackendError-free: NumPy would refuse what cannot be, so do we."""
        total = _count(self.shape)
        known = _count(tuple(size for size in shape if isinstance(size, Rows) or size != -1))
        if any(not isinstance(size, Rows) and size == -1 for size in shape):
            missing = total // max(known, 1)
            same = self.shape and missing == number_of(self.shape[0])
            first: Size = self.shape[0] if same and shape[0] == -1 else missing
            if self.shape and first is missing and isinstance(self.shape[0], Rows):
                rows_kept = any(size is self.shape[0] for size in shape)
                if not rows_kept:
                    operator.index(self.shape[0])
            shape = tuple(
                first if not isinstance(size, Rows) and size == -1 else size for size in shape
            )
        if _count(shape) != total or not shape:
            raise ValueError(f"An array of shape {self.shape} cannot be reshaped to {shape}.")
        return shape

    def __getitem__(self, key: Any) -> Traced:
        keys = key if isinstance(key, tuple) else (key,)
        if len(keys) > len(self.shape) or not all(isinstance(each, slice) for each in keys):
            raise Untraceable(f"an array was indexed with {key!r}; slices are understood")
        shape, offset = list(self.shape), self.offset
        for axis, each in enumerate(keys):
            if _takes_all(each, shape[axis]):
                continue
            start, stop, step = each.indices(operator.index(self.shape[axis]))
            if step != 1:
                raise Untraceable(f"an array was sliced with a step of {step}")
            shape[axis] = max(stop - start, 0)
            offset += start * self.strides[axis]
        return self._view(tuple(shape), self.strides, offset)

    def _view(self, shape: tuple[Any, ...], strides: tuple[int, ...], offset: int) -> Traced:
        return Traced(self.recording, self.buffer, shape, strides, self.dtype, offset)


def _takes_all(rows: slice, size: Size) -> bool:
    """``[:]``, or ``[:n]`` of n rows, which is no use of their number."""
    if rows.start is not None or rows.step is not None:
        return False
    if isinstance(rows.stop, Rows) and isinstance(size, Rows):
        return rows.stop.name == size.name
    return rows.stop is None


def _count(shape: tuple[Any, ...]) -> int:
    return math.prod(map(number_of, shape))


def dense_strides(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """In elements; the open number of rows, in front, is no part of any."""
    return tuple(_count(shape[axis + 1 :]) for axis in range(len(shape)))
