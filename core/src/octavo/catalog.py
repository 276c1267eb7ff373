"""Octavo's own backend distributions: what to install for which device.

Only messages read this table. Who serves a device is decided by installed plugins alone.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CATALOG", "CatalogEntry", "entry_for_backend", "entry_for_kind"]


@dataclass(frozen=True)
class CatalogEntry:
    """One distribution, the device kind it is for, and the backends it brings."""

    distribution: str
    kind: str
    backends: tuple[str, ...]
    is_released: bool
    needs: str = ""
    """What has to be there besides, from others. Such a kind is named to who asks for it, and is
    not listed."""

    @property
    def remedy(self) -> str:
        """What a user can do to get it."""
        if self.is_released:
            besides = f", and {self.needs}" if self.needs else ""
            return f"pip install {self.distribution}{besides}"
        return f"{self.distribution} is planned and not in this release"


CATALOG = (
    CatalogEntry("octavo-cpu", "cpu", ("native", "numpy", "fake"), is_released=True),
    CatalogEntry("octavo-torch", "cpu", ("torch",), is_released=True),
    CatalogEntry("octavo-cuda", "cuda", ("cuda",), is_released=True),
    CatalogEntry("octavo-rocm", "rocm", ("rocm",), is_released=True),
    CatalogEntry("octavo-xpu", "xpu", ("xpu",), is_released=True),
    CatalogEntry("octavo-tpu", "tpu", ("jax",), is_released=True),
    CatalogEntry(
        "octavo-tpu",
        "neuron",
        ("jax",),
        is_released=True,
        needs="AWS's Neuron SDK with its jax-neuronx",
    ),
)


def entry_for_kind(kind: str) -> CatalogEntry | None:
    """The first of Octavo's own distributions for a device kind."""
    return next((entry for entry in CATALOG if entry.kind == kind), None)


def entry_for_backend(name: str) -> CatalogEntry | None:
    """The one of Octavo's own distributions that brings a backend."""
    return next((entry for entry in CATALOG if name in entry.backends), None)
