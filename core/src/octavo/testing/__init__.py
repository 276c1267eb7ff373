"""What a backend's author, and whoever tests with a backend, may import; all else may change."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo.testing.faulty import FaultyBackend, InjectedError, InjectedFault

__all__ = ["FaultyBackend", "InjectedError", "InjectedFault"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in __all__:
        return getattr(import_module("octavo.testing.faulty"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
