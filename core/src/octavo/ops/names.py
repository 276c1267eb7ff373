"""The names of all ops, read off the protocol."""

from __future__ import annotations

import inspect

from octavo.ops.protocol import Ops

__all__ = ["OP_NAMES"]

OP_NAMES: tuple[str, ...] = tuple(
    name
    for name, member in vars(Ops).items()
    if inspect.isfunction(member) and not name.startswith("_")
)
"""In the protocol's order."""
