"""Finds a JAX device, and puts a backend on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax

from octavo.api import Backend, DeviceError, UsageError
from octavo_tpu.backend import JaxBackend
from octavo_tpu.options import JaxOptions
from octavo_tpu.platforms import PLATFORMS

if TYPE_CHECKING:
    from octavo_tpu.processes import Processes

__all__ = ["find_devices", "load"]

_NAMES = {platform.kind: platform.jax_name for platform in PLATFORMS} | {"cpu": "cpu"}
_ALIASES = {"cuda": "gpu", "rocm": "gpu"}
_TRIAL = (
    " To try it on the CPU alone, set XLA_FLAGS=--xla_force_host_platform_device_count={}: that "
    "many devices share its cores then."
)


def load(index: int, options: Mapping[str, Any]) -> Backend:
    """Raises UsageError for bad options, DeviceError for a device that JAX does not have."""
    parsed = JaxOptions.parse(options)
    processes = _join(parsed)
    devices = find_devices(parsed.device_kind, everywhere=processes is not None)
    if not 0 <= index < len(devices):
        there_is = ", ".join(f"{parsed.device_kind}:{i}" for i in range(len(devices)))
        raise DeviceError(
            f"There is no device {parsed.device_kind}:{index}; JAX has {there_is or 'none'}."
        )
    size = parsed.tensor_parallel_size
    if size == 1 and processes is None:
        return JaxBackend(devices[index], parsed)
    from octavo_tpu.group_backend import GroupBackend

    shared = devices[index : index + size]
    if len(shared) < size:
        raise UsageError(
            f"tensor_parallel_size={size} needs {parsed.device_kind}:{index} to "
            f"{parsed.device_kind}:{index + size - 1}; the last that JAX has is "
            f"{parsed.device_kind}:{len(devices) - 1}."
            f"{_TRIAL.format(index + size) if parsed.device_kind == 'cpu' else ''}"
        )
    if processes is not None and size < len(devices):
        raise UsageError(
            f"tensor_parallel_size={size}: the processes have {len(devices)} devices together, and "
            "a model has to be divided among all of them."
        )
    return GroupBackend(shared, parsed, processes)


def _join(options: JaxOptions) -> Processes | None:
    """The processes that share a model, where the options or the environment speak of several."""
    if options.coordinator_address is None and "JAX_COORDINATOR_ADDRESS" not in os.environ:
        return None
    from octavo_tpu.processes import join_processes

    return join_processes(
        options.coordinator_address,
        _given(options.num_processes, "JAX_NUM_PROCESSES"),
        _given(options.process_id, "JAX_PROCESS_ID"),
    )


def _given(option: int | None, variable: str) -> int | None:
    """The option, or else the variable, which JAX itself does not read; None on clusters it knows.

    Raises UsageError where the variable is no number.
    """
    text = os.environ.get(variable)
    if option is not None or text is None:
        return option
    if not text.isdecimal():
        raise UsageError(f"{variable} is {text!r}; expected a whole number.")
    return int(text)


def find_devices(kind: str, *, everywhere: bool = False) -> list[jax.Device]:
    """JAX's devices of one of Octavo's kinds: of this process, or of all that have been joined."""
    name = _NAMES.get(kind, kind)
    chosen = _chosen_platforms()
    if chosen and not {name.lower(), _ALIASES.get(name)} & set(chosen.lower().split(",")):
        raise DeviceError(
            f"JAX cannot use {kind}: JAX_PLATFORMS={chosen!r} leaves it out; unset it, or add "
            f"{name!r} to it."
        )
    try:
        return list(jax.devices(name) if everywhere else jax.local_devices(backend=name))
    except RuntimeError as error:
        raise DeviceError(f"JAX cannot use {kind}: {error}") from error


def _chosen_platforms() -> str:
    """Those that the environment or the program lets JAX use, with commas; "" for all."""
    return getattr(jax.config, "jax_platforms", None) or ""
