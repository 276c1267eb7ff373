"""Registers the backend ``xpu``; imports no torch, so that listing devices is quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from octavo.api import API_VERSION, AttentionSpec, BackendSpec, Probe, hookimpl
from octavo_xpu.attention_providers import attention_specs

if TYPE_CHECKING:
    from octavo.api import Backend

__all__ = ["octavo_register_attention", "octavo_register_backends"]


def _probe() -> Probe:
    from octavo_xpu.probe import probe

    return probe()


def _load(index: int, options: Mapping[str, Any]) -> Backend:
    from octavo_xpu.backend import XpuBackend

    return XpuBackend(index, options)


@hookimpl
def octavo_register_backends(register: Callable[[BackendSpec], None]) -> None:
    """Offer ``xpu`` for Intel GPUs."""
    register(
        BackendSpec(
            name="xpu",
            device_kinds=("xpu",),
            summary="Intel GPUs, through torch and Triton",
            probe=_probe,
            load=_load,
            api_version=API_VERSION,
        )
    )


@hookimpl
def octavo_register_attention(register: Callable[[AttentionSpec], None]) -> None:
    """Offer libraries of Intel's and vLLM's that may be installed."""
    for spec in attention_specs():
        register(spec)
