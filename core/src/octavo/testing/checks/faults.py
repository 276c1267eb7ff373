"""Faults injected into each member of a backend, overload, and requests that are aborted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octavo.testing.checks import fault_hangs, fault_loads, fault_steps, overload

if TYPE_CHECKING:
    from octavo.testing.check import Check

__all__ = ["CHECKS"]

CHECKS: tuple[Check, ...] = (
    *fault_steps.CHECKS,
    *fault_loads.CHECKS,
    *fault_hangs.CHECKS,
    *overload.CHECKS,
)
