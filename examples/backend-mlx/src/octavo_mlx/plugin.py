"""Registers the MLX backend; imports no array library, so that listing devices stays quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from octavo.api import API_VERSION, Backend, BackendSpec, DeviceInfo, Probe, hookimpl, host_memory

__all__ = ["octavo_register_backends"]


def _probe() -> Probe:
    """MLX's default device, if MLX is there; importing it to see is left to those who use it."""
    if find_spec("mlx") is None:
        return Probe(reason="MLX is not installed", install='pip install "mlx[cpu]"')
    device = DeviceInfo("mlx", 0, "MLX's default device", host_memory().total_bytes)
    return Probe(devices=(device,))


def _load(index: int, options: Mapping[str, Any]) -> Backend:
    from octavo_mlx.backend import MlxBackend

    return MlxBackend(index, options)


@hookimpl
def octavo_register_backends(register: Callable[[BackendSpec], None]) -> None:
    """Offer the backend ``mlx`` for devices of the kind ``mlx``."""
    register(
        BackendSpec(
            name="mlx",
            device_kinds=("mlx",),
            summary="MLX: an example of a framework that is neither NumPy, torch nor JAX",
            probe=_probe,
            load=_load,
            api_version=API_VERSION,
        )
    )
