"""A recorded step, ready to run: one call of the kernels, whatever the number of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo.api import BackendError
from octavo_cpu.native.eager import address_of
from octavo_cpu.native.instruction import INSTRUCTION
from octavo_cpu.native.memory_plan import Lifetime, place
from octavo_cpu.native.recording import Buffer, Recording
from octavo_cpu.native.rows import Rows

if TYPE_CHECKING:
    from octavo_cpu.native.library import Context
    from octavo_cpu.native.traced import Traced

__all__ = ["Program"]

_ALIGNMENT_BYTES = 64


class _Arena:
    """Memory of all results that grow with one number of rows, and the pointers into it."""

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        lifetimes = [Lifetime(each.first, each.last, each.num_bytes) for each in buffers]
        offsets, self.row_bytes = place(lifetimes)
        placed = zip(buffers, offsets, strict=True)
        self._offsets = {id(buffer): offset for buffer, offset in placed}
        self._memory = np.empty(0, np.uint8)
        self._entries: list[tuple[int, int, int]] = []  # slot, offset for each row, offset
        self._columns = np.empty((3, 0), np.uint64)

    @property
    def nbytes(self) -> int:
        """What is taken, for the largest step so far."""
        return self._memory.nbytes

    def holds(self, buffer: Buffer) -> bool:
        """Whether this is where it lies."""
        return id(buffer) in self._offsets

    def enter(self, slot: int, buffer: Buffer, offset_bytes: int) -> None:
        """A pointer to be set for each number of rows."""
        self._entries.append((slot, self._offsets[id(buffer)], offset_bytes))

    def seal(self) -> None:
        """No more pointers come."""
        self._columns = np.array(self._entries, np.uint64).reshape(-1, 3).T.copy()
        self._offsets.clear()

    def fit(self, pointers: NDArray[np.uint64], num_rows: int) -> None:
        """Set the pointers for so many rows; more memory is taken where there is too little."""
        needed = self.row_bytes * num_rows + _ALIGNMENT_BYTES
        if self._memory.nbytes < needed:
            self._memory = np.empty(0, np.uint8)  # let go first
            self._memory = _allocate(needed)
        address = self._memory.ctypes.data
        start = np.uint64(address + -address % _ALIGNMENT_BYTES)
        slots, row_offsets, offsets = self._columns
        pointers[slots.astype(np.intp)] = start + row_offsets * np.uint64(num_rows) + offsets


def _allocate(num_bytes: int) -> NDArray[np.uint8]:
    try:
        return np.empty(num_bytes, np.uint8)
    except MemoryError:
        raise BackendError(
            f"Out of memory: a step needs {num_bytes:,} bytes for results on the way. "
            "Lower max_num_batched_tokens."
        ) from None


class _Output:
    """A result that is handed out: fresh memory in every run."""

    def __init__(self, array: Traced) -> None:
        self.shape = tuple(size.name if isinstance(size, Rows) else size for size in array.shape)
        self.dtype = array.dtype
        self.slots: list[int] = []
        """Pointers to its beginning and, in ``offsets``, how far behind it they point."""
        self.offsets: list[int] = []


class Program:
    """Runs what a recording noted; one run at a time."""

    def __init__(
        self,
        context: Context,
        recording: Recording,
        outputs: Sequence[Traced],
        names: Sequence[str],
    ) -> None:
        """``outputs`` are dense and whole; ``names`` of numbers of rows, as ``run`` gets them."""
        self.bound: Mapping[str, int] = recording.bound
        self._context = context
        self._lock = Lock()
        self._names = tuple(names)
        self._numbers: tuple[int, ...] | None = None
        self._code = np.frombuffer(bytearray(b"".join(recording.code)), INSTRUCTION)
        self._words = self._code.view(np.int64)
        self._open_sizes = {name: np.array(places) for name, places in recording.open_sizes.items()}
        self._pointers = np.zeros(max(len(recording.slots), 1), np.uint64)
        self._constants: list[Any] = []  # kept alive
        self._arguments: list[tuple[int, int, int]] = []  # slot, argument, offset
        self._outputs = [_Output(array) for array in outputs]
        self._arenas = self._make_arenas(recording, outputs)
        self._enter(recording, outputs)
        self._code_address = self._code.ctypes.data
        self._pointers_address = self._pointers.ctypes.data

    @property
    def num_instructions(self) -> int:
        """How many there are."""
        return len(self._code)

    @property
    def nbytes(self) -> int:
        """Memory for results between the instructions."""
        return sum(arena.nbytes for arena in self._arenas.values())

    def _make_arenas(
        self, recording: Recording, outputs: Sequence[Traced]
    ) -> dict[str | None, _Arena]:
        handed_out = {id(array.buffer) for array in outputs}
        buffers: dict[str | None, list[Buffer]] = {}
        for buffer in recording.buffers:
            if id(buffer) not in handed_out:
                buffers.setdefault(buffer.rows, []).append(buffer)
        return {rows: _Arena(each) for rows, each in buffers.items()}

    def _enter(self, recording: Recording, outputs: Sequence[Traced]) -> None:
        """Sort the table of pointers by what they point at."""
        output_of = {id(array.buffer): index for index, array in enumerate(outputs)}
        for slot, entry in enumerate(recording.slots):
            place = entry.place
            if not isinstance(place, Buffer):
                self._constants.append(place)
                self._pointers[slot] = address_of(place)
            elif place.argument is not None:
                self._arguments.append((slot, place.argument, entry.offset_bytes))
            elif id(place) in output_of:
                output = self._outputs[output_of[id(place)]]
                output.slots.append(slot)
                output.offsets.append(entry.offset_bytes)
            else:
                self._arenas[place.rows].enter(slot, place, entry.offset_bytes)
        for arena in self._arenas.values():
            arena.seal()

    def run(self, arguments: Sequence[NDArray[Any]], numbers: tuple[int, ...]) -> list[Any]:
        """The results. ``arguments`` are arrays as recorded, save for their numbers of rows.

        Raises BackendError if memory runs out.
        """
        with self._lock:
            if numbers != self._numbers:
                self._fit(numbers)
            pointers = self._pointers
            held = []
            for slot, index, offset in self._arguments:
                array = arguments[index]
                if not array.flags.c_contiguous:
                    array = np.ascontiguousarray(array)
                    held.append(array)
                pointers[slot] = address_of(array) + offset
            results = [self._make_output(output) for output in self._outputs]
            self._context.run_at(self._code_address, len(self._code), self._pointers_address)
            return results

    def _make_output(self, output: _Output) -> NDArray[Any]:
        sizes = dict(zip(self._names, self._numbers or (), strict=True))
        shape = [sizes[size] if isinstance(size, str) else size for size in output.shape]
        array = np.empty(shape, output.dtype)
        address = address_of(array)
        for slot, offset in zip(output.slots, output.offsets, strict=True):
            self._pointers[slot] = address + offset
        return array

    def _fit(self, numbers: tuple[int, ...]) -> None:
        """Another number of rows: sizes and pointers follow."""
        self._numbers = None  # in case memory runs out in between
        sizes = dict(zip(self._names, numbers, strict=True))
        for name, places in self._open_sizes.items():
            self._words[places] = sizes[name]
        for rows, arena in self._arenas.items():
            arena.fit(self._pointers, 1 if rows is None else sizes[rows])
        self._numbers = numbers
