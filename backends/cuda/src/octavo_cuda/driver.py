"""What the NVIDIA driver says of its devices: asked in a process of its own, without torch.

``cuInit`` must not be called where a program may fork later: CUDA is unusable in the child then.
So this file is run as a program; it needs the standard library only, and creates no context.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["DriverReport", "GpuFacts", "ask_driver", "has_driver"]

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_LIMIT_S = 30.0
_NAME_BYTES = 256
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR in cuda.h


@dataclass(frozen=True)
class GpuFacts:
    """One GPU, in the driver's order."""

    name: str
    total_bytes: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class DriverReport:
    """``status`` is a CUresult: 0 for success."""

    status: int
    function: str = ""
    """Which call it comes from, where it is not 0."""
    version: tuple[int, int] = (0, 0)
    """The newest CUDA that the driver serves."""
    gpus: tuple[GpuFacts, ...] = ()


class _DriverError(Exception):
    """A call of the driver has failed."""

    def __init__(self, function: str, status: int) -> None:
        super().__init__(function, status)
        self.report = DriverReport(status, function)


def has_driver() -> bool:
    """Whether the library is there; loading it starts nothing."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def ask_driver() -> DriverReport:
    """Every device that CUDA_VISIBLE_DEVICES leaves, as the driver numbers them.

    Raises RuntimeError where the driver crashes or hangs.
    """
    command = [sys.executable, "-I", "-S", str(Path(__file__))]
    try:
        asked = subprocess.run(  # noqa: S603 - this file
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"the NVIDIA driver has not answered within {_LIMIT_S:g} s") from None
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"asking the NVIDIA driver ended with {asked.returncode}: {last}")
    return _report_of(json.loads(asked.stdout))


def _report_of(facts: dict[str, Any]) -> DriverReport:
    return DriverReport(
        status=facts["status"],
        function=facts["function"],
        version=(facts["version"][0], facts["version"][1]),
        gpus=tuple(
            GpuFacts(gpu["name"], gpu["total_bytes"], (gpu["capability"][0], gpu["capability"][1]))
            for gpu in facts["gpus"]
        ),
    )


def _read_devices() -> DriverReport:
    """In this process: ``cuInit`` and the questions."""
    cuda = ctypes.CDLL(LIBRARY)

    def call(function: str, *arguments: Any) -> None:
        status = getattr(cuda, function)(*arguments)
        if status:
            raise _DriverError(function, status)

    def number(function: str, *arguments: Any) -> int:
        value = ctypes.c_int()
        call(function, ctypes.byref(value), *arguments)
        return value.value

    def facts(index: int) -> GpuFacts:
        device = number("cuDeviceGet", index)
        name, total_bytes = ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t()
        call("cuDeviceGetName", name, _NAME_BYTES, device)
        call("cuDeviceTotalMem_v2", ctypes.byref(total_bytes), device)
        major, minor = (number("cuDeviceGetAttribute", each, device) for each in (_MAJOR, _MINOR))
        return GpuFacts(name.value.decode("utf-8", "replace"), total_bytes.value, (major, minor))

    try:
        call("cuInit", 0)
        version = number("cuDriverGetVersion")
        gpus = tuple(facts(index) for index in range(number("cuDeviceGetCount")))
    except _DriverError as error:
        return error.report
    return DriverReport(0, "", (version // 1000, version % 1000 // 10), gpus)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_read_devices())))
