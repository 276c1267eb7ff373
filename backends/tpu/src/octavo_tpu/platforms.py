"""The PJRT platforms that JAX would find here: read off what is installed, without importing it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules

__all__ = ["PLATFORMS", "Platform", "installed_plugins"]

_GOOGLE = "0x1ae0"
_AMD, _INTEL = "0x1002", "0x8086"


@dataclass(frozen=True)
class Platform:
    """A kind of device, what serves it in JAX, and how many of them the system shows."""

    kind: str
    jax_name: str
    """As ``jax.devices`` takes it."""
    plugins: tuple[str, ...]
    """Modules, one of which has to be there: below ``jax_plugins``, or on their own."""
    install: str
    count: Callable[[Path], int]
    """Devices below a root folder, which is ``/`` but in tests."""
    device: str
    """What it is called, in words."""


def installed_plugins() -> frozenset[str]:
    """Names of the PJRT plugins: namespace modules, entry points, and libraries of their own."""
    found = {entry.name for entry in entry_points(group="jax_plugins")}
    namespace = find_spec("jax_plugins")
    if namespace is not None and namespace.submodule_search_locations is not None:
        found |= {module.name for module in iter_modules(namespace.submodule_search_locations)}
    found |= {name for name in ("libtpu", "libneuronxla") if find_spec(name) is not None}
    return frozenset(found)


def _tpus(root: Path) -> int:
    """Chips that Google's drivers show, or PCI functions of its vendor."""
    nodes = [*(root / "dev").glob("accel[0-9]*"), *(root / "dev/vfio").glob("[0-9]*")]
    if nodes and _count_pci(root, _GOOGLE):
        return len(nodes)
    return len(list((root / "dev").glob("accel[0-9]*")))


def _count_pci(root: Path, vendor: str) -> int:
    files = (root / "sys/bus/pci/devices").glob("*/vendor")
    return sum(_text(file) == vendor for file in files)


def _count_render_nodes(vendor: str) -> Callable[[Path], int]:
    def count(root: Path) -> int:
        files = (root / "sys/class/drm").glob("renderD*/device/vendor")
        return sum(_text(file) == vendor for file in files)

    return count


def _count_files(pattern: str) -> Callable[[Path], int]:
    return lambda root: len(list(root.glob(pattern)))


def _count_metal(_root: Path) -> int:
    return int(sys.platform == "darwin")


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


PLATFORMS = (
    Platform("tpu", "tpu", ("libtpu",), "pip install 'octavo-tpu[tpu]'", _tpus, "TPU"),
    Platform(
        "neuron",
        "neuron",
        ("libneuronxla", "neuron"),
        "AWS's Neuron SDK and its jax-neuronx",
        _count_files("dev/neuron[0-9]*"),
        "Neuron device",
    ),
    Platform(
        "cuda",
        "cuda",
        ("xla_cuda12", "xla_cuda13"),
        "pip install 'jax[cuda13]'",
        _count_files("proc/driver/nvidia/gpus/*"),
        "NVIDIA GPU",
    ),
    Platform(
        "rocm",
        "rocm",
        ("xla_rocm60", "xla_rocm7", "xla_rocm"),
        "JAX's ROCm plugin (jax-rocm7-plugin, jax-rocm7-pjrt)",
        _count_render_nodes(_AMD),
        "AMD GPU",
    ),
    Platform(
        "xpu",
        "xpu",
        ("intel_extension_for_openxla", "intel_pjrt", "xla_oneapi", "oneapi"),
        "JAX's oneAPI plugin",
        _count_render_nodes(_INTEL),
        "Intel GPU",
    ),
    Platform("metal", "METAL", ("metal_plugin",), "pip install jax-metal", _count_metal, "GPU"),
)
