"""Whether the compiled kernels can run here; light, because whoever lists devices imports it."""

from __future__ import annotations

import platform

from octavo.api import DeviceError, DeviceInfo, Probe, host_memory

__all__ = ["probe", "processor_name"]

_INSTALL = "install a C++ compiler, then: pip install --force-reinstall --no-deps octavo-cpu"


def processor_name() -> str:
    """What the system calls the processor."""
    return platform.processor() or platform.machine() or "CPU"


def probe() -> Probe:
    """One CPU device where the library is built, loads, and knows this processor."""
    # ctypes loads a library of its own: only who gets here pays for it.
    from octavo_cpu.native.library_file import library_path, open_library, variants

    path = library_path()
    if not path.is_file():
        return Probe(reason=f"no compiled kernels ({path} is missing)", install=_INSTALL)
    try:
        open_library()
    except DeviceError as error:
        return Probe(reason=str(error), install=_INSTALL)
    if not variants():
        return Probe(reason=f"the kernels in {path} need another processor", install=_INSTALL)
    return Probe(devices=(DeviceInfo("cpu", 0, processor_name(), host_memory().total_bytes),))
