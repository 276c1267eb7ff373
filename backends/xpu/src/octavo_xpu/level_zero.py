"""What Level Zero says of Intel's GPUs: asked in a process of its own, without torch.

A process that has called ``zeInit`` must not fork and go on in the child. So this file is run as a
program; it needs the standard library only, and creates no context. The structures are those of
``ze_api.h`` (oneAPI Level Zero specification, version 1).
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["LevelZeroReport", "XpuFacts", "ask_level_zero", "has_loader"]

LIBRARY = "ze_loader.dll" if sys.platform == "win32" else "libze_loader.so.1"
_LIMIT_S = 30.0
_GPU_ONLY = 1  # ZE_INIT_FLAG_GPU_ONLY
_GPU = 1  # ZE_DEVICE_TYPE_GPU
_IS_INTEGRATED = 1  # ZE_DEVICE_PROPERTY_FLAG_INTEGRATED
_DEVICE_PROPERTIES, _MEMORY_PROPERTIES = 0x3, 0x7  # ZE_STRUCTURE_TYPE_DEVICE_…
_INTEL = 0x8086


@dataclass(frozen=True)
class XpuFacts:
    """One GPU, in Level Zero's order."""

    name: str
    device_id: int
    """Of its PCI function."""
    total_bytes: int
    """Its own memory, or the share of the host's that it may use."""
    is_integrated: bool


@dataclass(frozen=True)
class LevelZeroReport:
    """``status`` is a ``ze_result_t``: 0 for success."""

    status: int
    function: str = ""
    """Which call it comes from, where it is not 0."""
    gpus: tuple[XpuFacts, ...] = ()


class _DeviceProperties(ctypes.Structure):
    _fields_ = (
        ("stype", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("type", ctypes.c_uint32),
        ("vendor_id", ctypes.c_uint32),
        ("device_id", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("subdevice_id", ctypes.c_uint32),
        ("core_clock_rate", ctypes.c_uint32),
        ("max_alloc_size", ctypes.c_uint64),
        ("counts", ctypes.c_uint32 * 7),
        ("timer_resolution", ctypes.c_uint64),
        ("timestamp_bits", ctypes.c_uint32 * 2),
        ("uuid", ctypes.c_uint8 * 16),
        ("name", ctypes.c_char * 256),
    )


class _MemoryProperties(ctypes.Structure):
    _fields_ = (
        ("stype", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("max_clock_rate", ctypes.c_uint32),
        ("max_bus_width", ctypes.c_uint32),
        ("total_size", ctypes.c_uint64),
        ("name", ctypes.c_char * 256),
    )


class _LevelZeroError(Exception):
    """A call has failed."""

    def __init__(self, function: str, status: int) -> None:
        super().__init__(function, status)
        self.report = LevelZeroReport(status, function)


def has_loader() -> bool:
    """Whether the library is there; loading it starts nothing."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def ask_level_zero() -> LevelZeroReport:
    """Every GPU of Intel's that ZE_AFFINITY_MASK leaves, as SYCL and torch number them.

    Raises RuntimeError where a driver crashes or hangs.
    """
    command = [sys.executable, "-I", "-S", str(Path(__file__))]
    try:
        asked = subprocess.run(  # noqa: S603 - this file
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"Level Zero has not answered within {_LIMIT_S:g} s") from None
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"asking Level Zero ended with {asked.returncode}: {last}")
    facts = json.loads(asked.stdout)
    gpus = tuple(XpuFacts(**gpu) for gpu in facts["gpus"])
    return LevelZeroReport(facts["status"], facts["function"], gpus)


class _LevelZero:
    """The library, in this process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)

    def call(self, function: str, *arguments: Any) -> None:
        """Raise _LevelZeroError for any status but success."""
        status = getattr(self._library, function)(*arguments) & 0xFFFFFFFF
        if status:
            raise _LevelZeroError(function, status)

    def handles(self, function: str, *owner: Any) -> list[ctypes.c_void_p]:
        """As Level Zero lists things: how many there are, then themselves."""
        count = ctypes.c_uint32()
        self.call(function, *owner, ctypes.byref(count), None)
        found = (ctypes.c_void_p * count.value)()
        self.call(function, *owner, ctypes.byref(count), found)
        return [ctypes.c_void_p(handle) for handle in found[: count.value]]

    def total_bytes(self, device: ctypes.c_void_p) -> int:
        """Of all memories of a device."""
        count = ctypes.c_uint32()
        self.call("zeDeviceGetMemoryProperties", device, ctypes.byref(count), None)
        memories = (_MemoryProperties * count.value)()
        for memory in memories:
            memory.stype = _MEMORY_PROPERTIES
        self.call("zeDeviceGetMemoryProperties", device, ctypes.byref(count), memories)
        return sum(memory.total_size for memory in memories)

    def gpu(self, device: ctypes.c_void_p) -> XpuFacts | None:
        """None for what is no GPU of Intel's."""
        facts = _DeviceProperties(stype=_DEVICE_PROPERTIES)
        self.call("zeDeviceGetProperties", device, ctypes.byref(facts))
        if facts.type != _GPU or facts.vendor_id != _INTEL:
            return None
        return XpuFacts(
            name=facts.name.decode("utf-8", "replace"),
            device_id=facts.device_id,
            total_bytes=self.total_bytes(device),
            is_integrated=bool(facts.flags & _IS_INTEGRATED),
        )

    def gpus(self) -> tuple[XpuFacts, ...]:
        """Of all drivers."""
        self.call("zeInit", _GPU_ONLY)
        drivers = self.handles("zeDriverGet")
        devices = [each for driver in drivers for each in self.handles("zeDeviceGet", driver)]
        return tuple(gpu for gpu in map(self.gpu, devices) if gpu is not None)


def _read_devices() -> LevelZeroReport:
    """In this process: ``zeInit`` and the questions."""
    try:
        return LevelZeroReport(0, "", _LevelZero().gpus())
    except _LevelZeroError as error:
        return error.report


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_read_devices())))
