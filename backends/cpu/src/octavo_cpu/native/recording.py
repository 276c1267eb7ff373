"""Notes what the ops of one step do, to be done again in every step like it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo_cpu.native.encoding import SIZES_OFFSET, WORDS, element_of, encode
from octavo_cpu.native.instruction import Opcode
from octavo_cpu.native.library import PackedLinear
from octavo_cpu.native.rows import Rows, Size, Untraceable, number_of
from octavo_cpu.native.traced import Traced, dense_strides

__all__ = ["Buffer", "Recording", "Slot"]

_WIDE = 4  # which size of a product says that it is not rounded


@dataclass(eq=False)
class Buffer:
    """Memory of one result, or an argument of the step."""

    rows: str | None
    """What its size goes with: the name of a number of rows, or None for a fixed size."""
    num_bytes: int
    """Of one row, or of all."""
    argument: int | None = None
    first: int = 0  # instruction that writes it
    last: int = 0


@dataclass(frozen=True)
class Slot:
    """An entry of the table of pointers."""

    place: Buffer | NDArray[Any] | PackedLinear
    offset_bytes: int = 0


@dataclass
class Recording:
    """Instructions in the making; a Recorder whose arrays are ``Traced``."""

    code: list[bytes] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    open_sizes: dict[str, list[int]] = field(default_factory=dict)
    """Name of a number of rows → which 64-bit numbers of the program it stands in."""
    bound: dict[str, int] = field(default_factory=dict)
    """Numbers of rows that model code made use of: the recording serves these only."""
    _slot_of: dict[tuple[int, int], int] = field(default_factory=dict)

    def argument(
        self, index: int, shape: tuple[int, ...], dtype: np.dtype[Any], rows: str | None
    ) -> Traced:
        """An array that each step brings; ``rows`` names its first axis where that is left open."""
        sizes: tuple[Any, ...] = shape
        if rows is not None:
            sizes = (self._open(rows, shape[0]), *shape[1:])
        buffer = Buffer(rows, 0, argument=index)
        return Traced(self, buffer, sizes, dense_strides(sizes), dtype)

    def _open(self, name: str, number: int) -> Rows:
        bound = self.bound

        def bind(name: str) -> None:
            bound[name] = number

        return Rows(name, number, bind)

    def new(self, shape: tuple[Any, ...], dtype: np.dtype[Any]) -> Traced:
        """A result yet to come."""
        rows = next((size.name for size in shape[:1] if isinstance(size, Rows)), None)
        fixed = shape if rows is None else shape[1:]
        buffer = Buffer(rows, math.prod(fixed) * dtype.itemsize, first=len(self.code))
        self.buffers.append(buffer)
        return Traced(self, buffer, shape, dense_strides(shape), dtype)

    def emit(
        self,
        opcode: Opcode,
        dtype: np.dtype[Any],
        operands: Sequence[Any],
        sizes: Sequence[Size],
        scalars: Sequence[float] = (),
    ) -> None:
        """Note an instruction. Arrays of NumPy among its operands are constants."""
        slots = [self._slot(operand) for operand in operands]
        start = len(self.code) * WORDS + SIZES_OFFSET
        for index, size in enumerate(sizes):
            if isinstance(size, Rows):
                self.open_sizes.setdefault(size.name, []).append(start + index)
        element = element_of(dtype, opcode)
        self.code.append(encode(opcode, element, slots, list(map(number_of, sizes)), scalars))

    def copy(self, x: Traced) -> Traced:
        """The same numbers without gaps."""
        out = self.new(x.shape, x.dtype)
        self.emit(Opcode.COPY, x.dtype, (x, out), _copy_sizes(x))
        return out

    def unrounded(self, x: Traced) -> Traced:
        """A product in float32, if ``x`` is one, whole, that no instruction reads; else ``x``.

        For logits: rounded to bfloat16 those of the likeliest tokens are often equal.
        """
        number = x.buffer.first
        if x.buffer.last != number or x.dtype == np.float32 or not self._writes(number, x):
            return x
        word = bytearray(self.code[number])
        np.frombuffer(word, np.int64)[SIZES_OFFSET + _WIDE] = 1
        self.code[number] = bytes(word)
        dtype = np.dtype(np.float32)
        x.buffer.num_bytes = x.buffer.num_bytes // x.dtype.itemsize * dtype.itemsize
        return dataclasses.replace(x, dtype=dtype)

    def _writes(self, number: int, x: Traced) -> bool:
        """Whether this instruction is a product that writes all of ``x``."""
        opcode = np.frombuffer(self.code[number], np.int32)[0]
        is_whole = x.offset == 0 and x.is_dense and x.has_dense_rows
        return bool(opcode == Opcode.LINEAR and is_whole)

    def _slot(self, operand: Any) -> int:
        if operand is None:
            return -1
        if isinstance(operand, Traced):
            operand.buffer.last = len(self.code)
            offset_bytes = operand.offset * operand.dtype.itemsize
            return self._entry(operand.buffer, offset_bytes)
        return self._entry(operand, 0)

    def _entry(self, place: Any, offset_bytes: int) -> int:
        """What is listed is kept alive, so that no two places have one id."""
        key = (id(place), offset_bytes)
        if key not in self._slot_of:
            self._slot_of[key] = len(self.slots)
            self.slots.append(Slot(place, offset_bytes))
        return self._slot_of[key]


def _copy_sizes(x: Traced) -> tuple[Size, ...]:
    """(outer, inner, dim, stride of outer, stride of inner)."""
    if not x.shape:
        return (1, 1, 1, 1, 1)
    rows, stride = x.shape[0], x.strides[0]
    if x.has_dense_rows:
        dim = math.prod(x.shape[1:])
        return (rows, 1, dim, stride, dim)
    if len(x.shape) != 3 or x.strides[2] != 1:
        raise Untraceable(f"an array of shape {x.shape} and strides {x.strides} has to be copied")
    return (rows, *x.shape[1:], stride, x.strides[1])
