"""Checks of single sampling parameters: the value in its final form, or a UsageError naming it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from octavo.errors import UsageError

__all__ = [
    "checked_bool",
    "checked_float",
    "checked_int",
    "checked_logit_bias",
    "checked_strings",
    "checked_token_ids",
    "refuse_outside_vocabulary",
]

_log = logging.getLogger(__name__)
_MAX_BIAS = 100.0
_SHOWN = 5  # offending token ids in a message


def checked_float(
    name: str,
    value: Any,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
) -> float:
    """A finite number with ``low <= value``, ``above < value`` and ``value <= high``."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UsageError(f"{name} must be a number, got {value!r} ({type(value).__name__}).")
    number = float(value)
    if (
        not math.isfinite(number)
        or (low is not None and number < low)
        or (above is not None and number <= above)
        or (high is not None and number > high)
    ):
        start = f"({above:g}" if above is not None else f"[{low:g}"
        end = f"{high:g}]" if high is not None else "infinity)"
        raise UsageError(f"{name} must be in {start}, {end}, got {value}.")
    return number


def checked_int(
    name: str, value: Any, *, low: int, high: int, optional: bool = False
) -> int | None:
    """A whole number, ``low <= value <= high``; None passes where optional."""
    if optional and value is None:
        return None
    if not _is_int(value):
        alternative = " or None" if optional else ""
        raise UsageError(
            f"{name} must be an integer{alternative}, got {value!r} ({type(value).__name__})."
        )
    if not low <= value <= high:
        raise UsageError(f"{name} must be in [{low}, {high}], got {value}.")
    return int(value)


def checked_bool(name: str, value: Any) -> bool:
    """True or False, and nothing that merely counts as such."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be True or False, got {value!r} ({type(value).__name__}).")
    return value


def checked_strings(name: str, value: Any) -> tuple[str, ...]:
    """One string or a sequence of them, none empty; None is none at all."""
    strings = (value,) if isinstance(value, str) else value
    strings = () if strings is None else strings
    if not _is_sequence(strings) or not all(isinstance(string, str) for string in strings):
        raise UsageError(f"{name} must be a string or a list of strings, got {value!r}.")
    if "" in strings:
        raise UsageError(f"{name} cannot contain an empty string, got {value!r}.")
    return tuple(dict.fromkeys(strings))


def checked_token_ids(name: str, value: Any) -> tuple[int, ...]:
    """A sequence of token ids, without repetitions; None is none at all."""
    ids = () if value is None else value
    if not _is_sequence(ids) or not all(_is_int(token_id) for token_id in ids):
        raise UsageError(f"{name} must be a list of integer token ids, got {value!r}.")
    if any(token_id < 0 for token_id in ids):
        raise UsageError(f"{name} holds a negative token id: {value!r}.")
    return tuple(dict.fromkeys(int(token_id) for token_id in ids))


def checked_logit_bias(name: str, value: Any) -> dict[int, float] | None:
    """Token id to bias. Keys may be digits in a string (JSON has no other); values are clamped."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} must map token ids to numbers, got {value!r}.")
    biases = {}
    for key, bias in value.items():
        token_id = _token_id(name, key)
        number = checked_float(f"{name}[{key!r}]", bias, low=-float("inf"))
        clamped = min(_MAX_BIAS, max(-_MAX_BIAS, number))
        if clamped != number:
            _log.warning("%s[%r]=%g is clamped to %g.", name, key, number, clamped)
        biases[token_id] = clamped
    return biases


def refuse_outside_vocabulary(name: str, token_ids: Iterable[int], vocab_size: int) -> None:
    """Raise a UsageError if any id is not below ``vocab_size``."""
    outside = [token_id for token_id in token_ids if token_id >= vocab_size]
    if outside:
        shown = ", ".join(map(str, outside[:_SHOWN]))
        more = f" and {len(outside) - _SHOWN} more" if len(outside) > _SHOWN else ""
        raise UsageError(
            f"{name} holds token ids that this model does not have: {shown}{more}. "
            f"Its vocabulary is 0 to {vocab_size - 1}."
        )


def _token_id(name: str, key: Any) -> int:
    if _is_int(key) and key >= 0:
        return int(key)
    if isinstance(key, str) and key.isascii() and key.isdigit():
        return int(key)
    raise UsageError(f"{name} has the key {key!r}, which is not a token id (an integer from 0).")


def _is_int(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
