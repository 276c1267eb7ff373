"""Finds a JAX device, and puts a backend on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from octavo.api import Backend, DeviceError
from octavo_tpu.backend import JaxBackend
from octavo_tpu.options import JaxOptions
from octavo_tpu.platforms import PLATFORMS

__all__ = ["find_devices", "load"]

_NAMES = {platform.kind: platform.jax_name for platform in PLATFORMS} | {"cpu": "cpu"}


def load(index: int, options: Mapping[str, Any]) -> Backend:
    """Raises UsageError for bad options, DeviceError for a device that JAX does not have."""
    parsed = JaxOptions.parse(options)
    devices = find_devices(parsed.device_kind)
    if not 0 <= index < len(devices):
        there_is = ", ".join(f"{parsed.device_kind}:{i}" for i in range(len(devices)))
        raise DeviceError(
            f"There is no device {parsed.device_kind}:{index}; JAX has {there_is or 'none'}."
        )
    return JaxBackend(devices[index], parsed)


def find_devices(kind: str) -> list[jax.Device]:
    """JAX's devices of one of Octavo's kinds, those of this process."""
    try:
        return list(jax.local_devices(backend=_NAMES.get(kind, kind)))
    except RuntimeError as error:
        raise DeviceError(f"JAX cannot use {kind}: {error}") from error
