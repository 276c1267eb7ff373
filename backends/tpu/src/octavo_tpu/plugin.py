"""Registers the backend ``jax``; imports no JAX, so that listing devices is quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from octavo.api import API_VERSION, AttentionSpec, BackendSpec, Probe, hookimpl

if TYPE_CHECKING:
    from octavo.api import Backend

__all__ = ["octavo_register_attention", "octavo_register_backends", "served_kinds"]


def _probe() -> Probe:
    from octavo_tpu.probe import probe

    return probe()


def _load(index: int, options: Mapping[str, Any]) -> Backend:
    from octavo_tpu.load import load

    return load(index, options)


def served_kinds() -> tuple[str, ...]:
    """TPUs and the CPU anywhere, others where JAX has a plugin for them."""
    from octavo_tpu.platforms import PLATFORMS, installed_plugins

    plugins = installed_plugins()
    others = [each.kind for each in PLATFORMS if plugins.intersection(each.plugins)]
    return tuple(dict.fromkeys(["tpu", *others, "cpu"]))


@hookimpl
def octavo_register_backends(register: Callable[[BackendSpec], None]) -> None:
    """Offer ``jax`` for TPUs, for other devices with a PJRT plugin, and for the CPU."""
    register(
        BackendSpec(
            name="jax",
            device_kinds=served_kinds(),
            summary="TPUs and every other PJRT device, through JAX and Pallas",
            probe=_probe,
            load=_load,
            api_version=API_VERSION,
            tensor_parallel=True,
        )
    )


@hookimpl
def octavo_register_attention(register: Callable[[AttentionSpec], None]) -> None:
    """Offer the kernels for TPUs: Octavo's own, and JAX's."""
    from octavo_tpu.attention import ATTENTION_SPECS

    for spec in ATTENTION_SPECS:
        register(spec)
