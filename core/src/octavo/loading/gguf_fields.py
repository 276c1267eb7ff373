"""Typed access to a GGUF file's key-values: a missing or absurd one is an error that names it."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from octavo.errors import ModelLoadError

__all__ = ["GGUFFields"]

_MAX_INTEGER = 1 << 31


class GGUFFields:
    """The key-values under one architecture's prefix ("llama.block_count" is "block_count")."""

    def __init__(self, path: Path, metadata: Mapping[str, Any], architecture: str) -> None:
        self._path = path
        self._metadata = metadata
        self._prefix = f"{architecture}."

    def has(self, key: str) -> bool:
        """Whether the file has the key."""
        return self._prefix + key in self._metadata

    def get(self, key: str) -> Any:
        """The raw value, or None."""
        return self._metadata.get(self._prefix + key)

    def error(self, key: str, expected: str) -> ModelLoadError:
        """An error about the key's value, to be raised by the caller."""
        value = reprlib.repr(self.get(key))  # shortened: it may be a whole vocabulary
        return ModelLoadError(f"{self._path}: {self._prefix}{key} is {value}; expected {expected}")

    def count(self, key: str, default: int | None = None) -> int:
        """A positive integer; an array is accepted where all its entries are the same."""
        value = self._value(key, default)
        if isinstance(value, np.ndarray):
            value = self._single_entry(key, value)
        if type(value) is not int or not 0 < value < _MAX_INTEGER:
            raise self.error(key, f"a whole number from 1 to {_MAX_INTEGER - 1}")
        return value

    def optional_count(self, key: str) -> int | None:
        """As ``count``, with None for a missing key and for 0, which stands for "off"."""
        return None if self._is_off(key) else self.count(key)

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above 0."""
        value = self._value(key, default)
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            raise self.error(key, "a number above 0")
        return float(value)

    def optional_number(self, key: str) -> float | None:
        """As ``number``, with None for a missing key and for 0, which stands for "off"."""
        return None if self._is_off(key) else self.number(key)

    def _is_off(self, key: str) -> bool:
        value = self.get(key)
        return value is None or (type(value) in (int, float) and value == 0)

    def _value(self, key: str, default: float | None) -> Any:
        if not self.has(key) and default is None:
            raise ModelLoadError(
                f"{self._path}: the key {self._prefix}{key} is missing; without it the model's "
                "shape is unknown. Convert the model again with a current llama.cpp"
            )
        return self._metadata.get(self._prefix + key, default)

    def _single_entry(self, key: str, values: np.ndarray[Any, Any]) -> Any:
        if values.ndim != 1 or values.size == 0 or (values != values[0]).any():
            raise self.error(key, "one number, or the same for every layer")
        return values[0].item()
