"""The checks of the conformance suite, one module for each thing they look at."""

from __future__ import annotations

from octavo.testing.check import SECTIONS, Check
from octavo.testing.checks import (
    contract,
    engine,
    faults,
    invariance,
    ops_activation,
    ops_attention,
    ops_kept,
    ops_linear,
    ops_norm,
    ops_rope,
    ops_rows,
    paging,
    paging_caches,
    paging_copies,
    performance,
    randomness,
)

__all__ = ["CHECKS"]

_MODULES: tuple[tuple[Check, ...], ...] = (
    contract.CHECKS,
    ops_rows.CHECKS,
    ops_norm.CHECKS,
    ops_activation.CHECKS,
    ops_rope.CHECKS,
    ops_linear.CHECKS,
    ops_attention.CHECKS,
    ops_kept.CHECKS,
    paging.CHECKS,
    paging_copies.CHECKS,
    paging_caches.CHECKS,
    invariance.CHECKS,
    randomness.CHECKS,
    engine.CHECKS,
    faults.CHECKS,
    performance.CHECKS,
)

CHECKS: tuple[Check, ...] = tuple(
    sorted(
        (check for checks in _MODULES for check in checks),
        key=lambda check: SECTIONS.index(check.section),
    )
)
"""Every check, in the order of SECTIONS; within one, in the order of its module."""
