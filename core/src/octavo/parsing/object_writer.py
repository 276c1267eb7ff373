"""A JSON object written member by member, for formats whose arguments are not JSON."""

from __future__ import annotations

from typing import Any

from octavo.parsing.cursor import MalformedCall, Put
from octavo.parsing.json_reader import json_text

__all__ = ["ObjectWriter"]


class ObjectWriter:
    """Writes an object to `put` as its members become known."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._keys: set[str] = set()

    def member(self, key: str, value: Any) -> None:
        """One more member. Raises MalformedCall for a key that was there, or a value JSON lacks."""
        if key in self._keys:
            raise MalformedCall(f"the argument {key!r} is given twice")
        try:
            text = f"{json_text(key)}: {json_text(value)}"
        except ValueError as error:
            raise MalformedCall(f"the argument {key!r} has no form in JSON: {error}") from error
        self._put(f"{', ' if self._keys else '{'}{text}")
        self._keys.add(key)

    def close(self) -> None:
        """No more members."""
        self._put("}" if self._keys else "{}")
