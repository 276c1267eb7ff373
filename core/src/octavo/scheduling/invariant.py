"""Checks of our own invariants that stay on under ``python -O``."""

from __future__ import annotations

__all__ = ["require"]


def require(condition: bool, message: str) -> None:
    """Raise AssertionError with what is wrong."""
    if not condition:
        raise AssertionError(message)
