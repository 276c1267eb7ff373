"""Registers the backend ``torch`` for CPU devices; imports no torch, so that listing is quick."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from octavo.api import (
    API_VERSION,
    AttentionSpec,
    BackendError,
    BackendSpec,
    DeviceInfo,
    ModelSpec,
    Probe,
    hookimpl,
    host_memory,
)
from octavo_torch.attention_providers import attention_specs

if TYPE_CHECKING:
    from octavo.api import Backend

__all__ = [
    "octavo_register_attention",
    "octavo_register_backends",
    "octavo_register_models",
]


def _probe() -> Probe:
    """The CPU, wherever torch is installed."""
    if find_spec("torch") is None:
        return Probe(reason="torch is not installed", install="pip install torch")
    return Probe(devices=(DeviceInfo("cpu", 0, _processor_name(), host_memory().total_bytes),))


def _processor_name() -> str:
    """What the system calls the processor, as the other backends of the CPU say it."""
    return platform.processor() or platform.machine() or "CPU"


def _load(index: int, options: Mapping[str, Any]) -> Backend:
    from octavo_torch.cpu import TorchCpuBackend

    return TorchCpuBackend(index, options)


@hookimpl
def octavo_register_backends(register: Callable[[BackendSpec], None]) -> None:
    """Offer ``torch`` for CPU devices."""
    register(
        BackendSpec(
            name="torch",
            device_kinds=("cpu",),
            summary="torch on the CPU, as its GPU backends use it",
            probe=_probe,
            load=_load,
            api_version=API_VERSION,
        )
    )


def _build_with_transformers(config: Mapping[str, Any]) -> Any:
    from octavo_torch.transformers_models.model import TransformersModel

    return TransformersModel(config)


@hookimpl
def octavo_register_models(register: Callable[[ModelSpec], None]) -> None:
    """Offer transformers' own code, for every architecture, to every backend on torch."""
    for backend in ("torch", "cuda", "rocm", "xpu"):
        register(
            ModelSpec(
                architecture="*",
                build=_build_with_transformers,
                backend=backend,
                implementation="transformers",
            )
        )


def _load_ipex(backend: Backend) -> Mapping[str, Callable[..., Any]]:
    if find_spec("intel_extension_for_pytorch") is None:
        raise BackendError(
            "intel-extension-for-pytorch is not installed (pip install "
            "intel-extension-for-pytorch==2.8.0, beside torch 2.8)"
        )
    from octavo_torch.ipex_ops import load_ipex_ops

    return load_ipex_ops(backend)


@hookimpl
def octavo_register_attention(register: Callable[[AttentionSpec], None]) -> None:
    """Offer what torch, Triton and libraries that may be installed have for it."""
    for spec in attention_specs():
        register(spec)
    register(
        AttentionSpec(
            name="ipex",
            backend="torch",
            ops=("write_kv", "paged_attention", "rope_attend", "rms_norm"),
            load=_load_ipex,
            supports=lambda _model: None,
            api_version=API_VERSION,
            summary="Intel's extension for PyTorch, up to torch 2.8",
        )
    )
