"""The conformance suite, and what else a backend's author may test with.

Others may rely on the names that these modules export; all else here may change.

* ``suite``: the checks as pytest tests, ``from octavo.testing.suite import *``;
* ``check`` and ``subject``: what a check is, and the backend that it is given;
* ``oracle`` and ``tolerances``: the ops in float64, and how far a result may be from them;
* ``paged_step``: a step over a poisoned cache of shuffled blocks, made from dense sequences;
* ``faulty``: a proxy with faults in front of any backend, whose names this module exports as well.
"""

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
