"""Bounds on what a chat template may build: sizes checked before memory is spent."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

from jinja2.exceptions import SecurityError

__all__ = [
    "MAX_BUILT",
    "MAX_INTEGER",
    "MAX_STEPS",
    "StepBudget",
    "check_arguments",
    "check_operator",
    "join",
    "measure",
]

MAX_BUILT = 8 * 2**20
"""Characters of a text or members of a list; a prompt of a million tokens has about half of it."""

MAX_INTEGER = 100_000
"""Largest number given to a filter or method, where it is a width, a count or a precision."""

_MAX_INTEGER_BITS = 10_000
_WIDE_FIELD = re.compile(
    r"[0-9]{6,}|\*|\{[^}]*\{"
)  # a width over 99,999, or taken from an argument

MAX_STEPS = 5_000_000
"""Loop iterations and calls of one rendering: seconds, where templates need thousands."""


class StepBudget:
    """Counts the steps of one rendering."""

    def __init__(self) -> None:
        self._left = MAX_STEPS

    def spend(self, num_steps: int = 1) -> None:
        """Take steps from the budget, or end the rendering."""
        self._left -= num_steps
        if self._left < 0:
            raise SecurityError(f"it takes more than {MAX_STEPS:,} loop iterations and calls")

    def iterate(self, iterable: Iterable[Any]) -> Iterable[Any]:
        """The same members, paid for; at once where their number is known."""
        if isinstance(iterable, Sized):
            self.spend(len(iterable))
            return iterable
        return self._iterate_one_by_one(iterable)

    def _iterate_one_by_one(self, iterable: Iterable[Any]) -> Iterator[Any]:
        for member in iterable:
            self.spend()
            yield member


def _check_size(size: int) -> None:
    """Refuse to build something larger than `MAX_BUILT`."""
    if size > MAX_BUILT:
        raise SecurityError(f"it builds a text or list of more than {MAX_BUILT:,} members")


def measure(*values: Any) -> int:
    """Characters and members in `values`, as deep as they go; refused if too many.

    A list that holds another one twice counts it twice, as its text would.
    """
    size = 0
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, Mapping):
            waiting.extend(value)
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
        size += 1
        _check_size(size + len(waiting))
    return size


def join(parts: Iterable[str]) -> str:
    """The text of a block, counted as it grows."""
    size = 0
    text = io.StringIO()
    for part in parts:
        size += len(part)
        _check_size(size)
        text.write(part)
    return text.getvalue()


def check_operator(operator: str, left: Any, right: Any) -> None:
    """Refuse ``+ * ** %`` where the result would be too large."""
    if operator == "%" and isinstance(left, str):
        check_arguments("format", (left, right))
    elif isinstance(left, int) and isinstance(right, int):
        _check_integers(operator, left, right)
    elif operator == "+":
        _check_size(_length(left) + _length(right))
    elif operator == "*":
        _check_size(_length(left) * _times(right) + _length(right) * _times(left))


def check_arguments(name: str, arguments: Sequence[Any]) -> None:
    """Refuse a filter or method of text where its result would be too large.

    `arguments` begin with the text itself. What is not named below makes a few characters of each
    one at most.
    """
    size = measure(*arguments)
    if any(isinstance(value, int) and abs(value) > MAX_INTEGER for value in arguments):
        raise SecurityError(f"it calls {name} with a number over {MAX_INTEGER:,}")
    text, *others = arguments
    if not isinstance(text, str | list | tuple) or not others:
        return
    if name == "replace":
        _check_size(str(text).count(str(others[0])) * len(str(others[1])) + size)
    elif name == "join":
        _check_size(size + max(_length(text) * _length(others[0]), 0))
    elif name == "indent":
        _check_size((str(text).count("\n") + 1) * (_times(others[0]) or len(str(others[0]))))
    elif name == "expandtabs":
        _check_size(str(text).count("\t") * _times(others[0]))
    elif name in ("wordwrap", "translate"):
        _check_size(len(str(text)) * measure(*others))
    elif name in ("format", "format_map"):
        _check_format(str(text), measure(*others))


def _check_format(text: str, size_of_arguments: int) -> None:
    if _WIDE_FIELD.search(text):
        raise SecurityError("it formats with a width of 100,000 or more, or one from an argument")
    num_fields = text.count("%") + text.count("{")
    _check_size(
        num_fields * size_of_arguments + 100_000 * num_fields * bool(re.search(r"[0-9]{4}", text))
    )


def _check_integers(operator: str, left: int, right: int) -> None:
    factor = right if operator == "**" else 1
    num_bits = left.bit_length() * max(factor, 1) + right.bit_length()
    if operator in ("*", "**") and num_bits > _MAX_INTEGER_BITS:
        raise SecurityError(f"it computes a number of more than {_MAX_INTEGER_BITS:,} bits")


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def _times(value: Any) -> int:
    return max(value, 0) if isinstance(value, int) else 0
