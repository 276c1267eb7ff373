"""Registers the MLX backend; imports no array library, so that listing devices stays quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from octavo.api import API_VERSION, Backend, BackendSpec, DeviceInfo, Probe, hookimpl, host_memory

__all__ = ["octavo_register_backends"]


def _probe() -> Probe:
    """MLX's default device. What a broken installation raises here is shown to the user."""
    import mlx.core as mx

    name = str(mx.device_info()["device_name"])
    return Probe(devices=(DeviceInfo("mlx", 0, name, host_memory().total_bytes),))


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
