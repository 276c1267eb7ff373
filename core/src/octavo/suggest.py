"""Wording for a bad choice: the nearest good one, and the list of all."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["choices", "did_you_mean"]


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` with its leading space, or nothing if no name is near."""
    matches = difflib.get_close_matches(given, list(known), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def choices(known: Iterable[str]) -> str:
    """The good choices as one phrase: ``a, b, c`` or ``(none)``."""
    return ", ".join(known) or "(none)"
