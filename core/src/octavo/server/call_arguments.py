"""The arguments of a call that a client sends back, which are text that holds an object."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["read_call_arguments"]


def read_call_arguments(text: str) -> dict[str, Any] | None:
    """The object, empty for empty text; None if it is something else."""
    if not text.strip():
        return {}
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None
