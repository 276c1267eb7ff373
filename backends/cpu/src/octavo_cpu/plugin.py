"""Registers the NumPy backend; imports no array library, so that listing devices stays quick."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from typing import Any

from octavo.api import API_VERSION, Backend, BackendSpec, DeviceInfo, Probe, hookimpl, host_memory

__all__ = ["octavo_register_backends"]


def _probe() -> Probe:
    """One CPU device, whatever the machine: NumPy is a dependency, so there is nothing to miss."""
    return Probe(devices=(DeviceInfo("cpu", 0, _processor_name(), host_memory().total_bytes),))


def _processor_name() -> str:
    return platform.processor() or platform.machine() or "CPU"


def _load(index: int, options: Mapping[str, Any]) -> Backend:
    from octavo_cpu.backend import NumpyBackend

    return NumpyBackend(index, options)


@hookimpl
def octavo_register_backends(register: Callable[[BackendSpec], None]) -> None:
    """Offer the backend ``numpy`` for CPU devices."""
    register(
        BackendSpec(
            name="numpy",
            device_kinds=("cpu",),
            summary="NumPy reference: runs wherever NumPy runs",
            probe=_probe,
            load=_load,
            api_version=API_VERSION,
        )
    )
