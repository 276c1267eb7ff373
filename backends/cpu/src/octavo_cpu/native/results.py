"""What a recorded function returned: which arrays each run has to bring, and what stands around."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from octavo_cpu.native.recording import Recording
from octavo_cpu.native.rows import Untraceable
from octavo_cpu.native.traced import Traced

__all__ = ["Results"]

Build = Callable[[Sequence[Any]], Any]


class Results:
    """The form of a result; what no step computes is handed out as it is, every time."""

    def __init__(self, recording: Recording, returned: Any) -> None:
        """Note copies of arrays that are parts of others; raises Untraceable for arguments.

        What a product gives is not rounded to the compute dtype: ``sample`` takes float32 as well.
        """
        self.arrays: list[Traced] = []
        self._recording = recording
        self.build = self._builder(returned) or (lambda _: returned)
        """``build(arrays)``: the function's result with these for ``arrays``."""
        del self._recording

    def _builder(self, value: Any) -> Build | None:
        """None for what holds no array that a step computes."""
        if isinstance(value, Traced):
            index = self._add(value)
            return lambda arrays: arrays[index]
        if isinstance(value, tuple | list):
            kind, builders = type(value), [self._builder(item) for item in value]
            if not any(builders):
                return None
            parts = list(zip(value, builders, strict=True))
            return lambda arrays: kind(
                item if build is None else build(arrays) for item, build in parts
            )
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            made: Any = type(value)
            fields = {
                field.name: self._builder(getattr(value, field.name))
                for field in dataclasses.fields(value)
            }
            if not any(fields.values()):
                return None
            parts = [(getattr(value, name), build) for name, build in fields.items()]
            return lambda arrays: made(
                *[item if build is None else build(arrays) for item, build in parts]
            )
        return None

    def _add(self, array: Traced) -> int:
        if array.buffer.argument is not None:
            raise Untraceable("it returns one of its arguments")
        is_whole = array.offset == 0 and array.is_dense and array.has_dense_rows
        shares = any(other.buffer is array.buffer for other in self.arrays)
        if shares or not is_whole or not _covers(array):
            array = self._recording.copy(array)
        array = self._recording.unrounded(array)
        self.arrays.append(array)
        return len(self.arrays) - 1


def _covers(array: Traced) -> bool:
    """Whether nothing of the buffer is left out."""
    rows = array.shape[:1] if array.buffer.rows is not None else ()
    if rows and getattr(rows[0], "name", None) != array.buffer.rows:
        return False
    count = array.dtype.itemsize
    for size in array.shape[len(rows) :]:
        count *= size
    return count == array.buffer.num_bytes
