"""Registers the backends of the CPU and the fake device; light: listing devices stays quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from octavo.api import API_VERSION, Backend, BackendSpec, DeviceInfo, Probe, hookimpl, host_memory
from octavo_cpu.fake.probe import probe as probe_fake
from octavo_cpu.native.probe import probe as probe_native
from octavo_cpu.native.probe import processor_name

__all__ = ["octavo_register_backends"]


def _probe() -> Probe:
    """One CPU device, whatever the machine: NumPy is a dependency, so there is nothing to miss."""
    return Probe(devices=(DeviceInfo("cpu", 0, processor_name(), host_memory().total_bytes),))


def _load(index: int, options: Mapping[str, Any]) -> Backend:
    from octavo_cpu.backend import NumpyBackend

    return NumpyBackend(index, options)


def _load_native(index: int, options: Mapping[str, Any]) -> Backend:
    from octavo_cpu.native.backend import NativeBackend

    return NativeBackend(index, options)


def _load_fake(index: int, options: Mapping[str, Any]) -> Backend:
    from octavo_cpu.fake.load import load_fake

    return load_fake(index, options)


@hookimpl
def octavo_register_backends(register: Callable[[BackendSpec], None]) -> None:
    """Offer ``native`` and ``numpy`` for CPU devices, and ``fake`` to who names it."""
    register(
        BackendSpec(
            name="native",
            device_kinds=("cpu",),
            summary="Compiled kernels for the processor at hand",
            probe=probe_native,
            load=_load_native,
            api_version=API_VERSION,
        )
    )
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
    register(
        BackendSpec(
            name="fake",
            device_kinds=("fake",),
            summary="No hardware: a device for tests, with memory, latency and faults as told",
            probe=probe_fake,
            load=_load_fake,
            api_version=API_VERSION,
            automatic=False,
        )
    )
