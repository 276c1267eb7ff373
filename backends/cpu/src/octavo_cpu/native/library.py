"""The compiled kernels, called through ctypes: few calls, each of which lets go of the GIL."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from octavo.api import BackendError, DeviceError
from octavo_cpu.native.instruction import Opcode, Scheme
from octavo_cpu.native.library_file import open_library, variants
from octavo_cpu.nodes import usable_nodes

__all__ = [
    "Context",
    "OpcodeTotal",
    "PackedLinear",
    "load_library",
    "spread",
    "spread_over",
    "variants",
]

_LOGGER = logging.getLogger(__name__)

_CLOSED = "The threads of backend 'native' were ended by close()."


@cache
def load_library() -> Any:
    """The library with its signatures; raises DeviceError where it cannot be opened."""
    library = open_library()
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.octavo_variants.argtypes = [ctypes.c_char_p, ctypes.c_int]
    library.octavo_context_new.argtypes = [ctypes.c_int, ctypes.c_char_p]
    library.octavo_context_new.restype = pointer
    library.octavo_context_free.argtypes = [pointer]
    library.octavo_context_free.restype = None
    library.octavo_run.argtypes = [pointer, pointer, number, pointer]
    library.octavo_run.restype = number
    library.octavo_fault.argtypes = [pointer]
    library.octavo_fault.restype = ctypes.c_char_p
    library.octavo_profile.argtypes = [pointer, ctypes.c_int]
    library.octavo_profile.restype = None
    library.octavo_profile_read.argtypes = [pointer, pointer, number]
    library.octavo_profile_read.restype = None
    library.octavo_linear_new.argtypes = [
        pointer,
        ctypes.c_int,
        pointer,
        number,
        number,
        number,
        pointer,
    ]
    library.octavo_linear_new.restype = pointer
    library.octavo_linear_bytes.argtypes = [pointer]
    library.octavo_linear_bytes.restype = number
    library.octavo_linear_free.argtypes = [pointer]
    library.octavo_linear_free.restype = None
    library.octavo_spread_over.argtypes = [pointer, ctypes.c_int]
    library.octavo_spread.argtypes = [pointer, number]
    library.octavo_spread.restype = None
    nodes = usable_nodes()
    if len(nodes) > 1 and spread_over(library, nodes):
        _LOGGER.info("weights and caches are spread over the memory of nodes %s", nodes)
    return library


def spread_over(library: Any, nodes: Sequence[int]) -> bool:
    """Spread large memory over these nodes from here on, in the whole process; False: it cannot be.

    Over none: it lies where it is first written.
    """
    return bool(library.octavo_spread_over((ctypes.c_int32 * len(nodes))(*nodes), len(nodes)))


def spread(memory: NDArray[Any]) -> None:
    """Have an array that nobody has touched yet spread as weights are."""
    load_library().octavo_spread(memory.ctypes.data, memory.nbytes)


class Context:
    """The threads of one device and the instruction set they compute with; ``close`` ends them.

    May be called from several threads: one waits for the other.
    """

    def __init__(self, num_threads: int, variant: str = "") -> None:
        self._library = load_library()
        self._run = self._library.octavo_run
        self._lock = Lock()
        self._handle = self._library.octavo_context_new(num_threads, variant.encode())
        if not self._handle:
            raise DeviceError(_why_no_context(num_threads, variant))

    @contextmanager
    def _held(self) -> Iterator[int]:
        """The handle, which nobody closes meanwhile."""
        with self._lock:
            if not self._handle:
                raise BackendError(_CLOSED)
            yield self._handle

    def run(self, instructions: NDArray[Any], pointers: NDArray[np.uint64]) -> None:
        """Carry out instructions (of dtype INSTRUCTION); what they point at must be alive."""
        self.run_at(instructions.ctypes.data, len(instructions), pointers.ctypes.data)

    def run_one(self, instruction: bytes, pointers: Sequence[int]) -> None:
        """Carry out one instruction on what lies at ``pointers``."""
        self.run_at(instruction, 1, (ctypes.c_uint64 * len(pointers))(*pointers))

    def run_at(self, instructions: int | bytes, count: int, pointers: Any) -> None:
        """The same as ``run``, given where instructions and pointers lie."""
        with self._lock:  # not _held: this is called in every step
            failed = self._handle and self._run(self._handle, instructions, count, pointers)
            fault = self._library.octavo_fault(self._handle) if failed else b""
        if failed is None:
            raise BackendError(_CLOSED)
        if failed:
            raise BackendError(
                f"Instruction {failed - 1} of a step failed in backend 'native': "
                f"{fault.decode(errors='replace')}."
            )

    def start_profile(self) -> None:
        """Measure every instruction from here on; until then it costs nothing."""
        with self._held() as handle:
            self._library.octavo_profile(handle, 1)

    def stop_profile(self) -> dict[Opcode, OpcodeTotal]:
        """What every opcode took since ``start_profile``; the longest first."""
        totals = np.zeros((len(Opcode), 3), np.int64)
        with self._held() as handle:
            self._library.octavo_profile(handle, 0)
            self._library.octavo_profile_read(handle, totals.ctypes.data, len(totals))
        rows = zip(Opcode, (OpcodeTotal(*row) for row in totals.tolist()), strict=True)
        used = {opcode: total for opcode, total in rows if total.calls}
        return dict(sorted(used.items(), key=lambda item: -item[1].nanoseconds))

    def pack(
        self,
        scheme: Scheme,
        rows: NDArray[Any],
        out_features: int,
        in_features: int,
        bias: NDArray[np.float32] | None,
    ) -> PackedLinear:
        """A weight in the kernels' own layout; ``rows`` may be let go of afterwards."""
        if rows.strides[-1] != rows.itemsize:
            rows = np.ascontiguousarray(rows)
        bias = None if bias is None else np.ascontiguousarray(bias, np.float32)
        with self._held() as context:
            handle = self._library.octavo_linear_new(
                context,
                int(scheme),
                rows.ctypes.data,
                rows.strides[0],
                out_features,
                in_features,
                None if bias is None else bias.ctypes.data,
            )
        if not handle:
            raise BackendError(f"No memory for a weight of {out_features} x {in_features}.")
        return PackedLinear(self._library, handle, out_features, in_features)

    def close(self) -> None:
        """End the threads; nothing can be run afterwards."""
        with self._lock:
            handle, self._handle = self._handle, None
            if handle:
                self._library.octavo_context_free(handle)


def _why_no_context(num_threads: int, variant: str) -> str:
    known = variants()
    if variant and variant not in known:
        return (
            f"This processor cannot run the kernels for {variant!r}; it can run {', '.join(known)}."
        )
    return f"The system gives no {num_threads} threads; set a smaller number with --threads."


class OpcodeTotal(NamedTuple):
    """What all instructions of one opcode took; ``bytes`` are those of the weights read."""

    nanoseconds: int
    calls: int
    bytes: int


class PackedLinear:
    """A prepared weight and its bias, in memory of the kernels' own."""

    def __init__(self, library: Any, handle: int, out_features: int, in_features: int) -> None:
        self._library = library
        self.handle = handle
        self.out_features = out_features
        self.in_features = in_features

    @property
    def nbytes(self) -> int:
        """What a product reads."""
        return int(self._library.octavo_linear_bytes(self.handle))

    def __del__(self) -> None:
        if handle := self.__dict__.pop("handle", None):
            self._library.octavo_linear_free(handle)
