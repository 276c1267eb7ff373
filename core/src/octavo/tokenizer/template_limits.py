"""Bounds on what a chat template may build: sizes checked before memory is spent."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

from jinja2.exceptions import SecurityError

__all__ = [
    "MAX_BUILT",
    "MAX_CPU_S",
    "MAX_INTEGER",
    "MAX_STEPS",
    "MAX_TOTAL_BUILT",
    "Budget",
    "check_arguments",
    "check_operator",
    "join",
    "measure",
]

MAX_BUILT = 8 * 2**20
"""Characters of a text or members of a list; a prompt of a million tokens has about half of it."""

MAX_TOTAL_BUILT = 64 * MAX_BUILT
"""The same, of all that one rendering builds."""

MAX_STEPS = 1_000_000
"""Loop iterations and calls of one rendering: seconds, where templates need thousands."""

MAX_INTEGER = 100_000
"""Largest number given to a filter or method, where it is a width, a count or a precision."""

MAX_CPU_S = 5.0
"""Processor time of one rendering: looking through long texts and lists builds nothing."""

_MAX_INTEGER_BITS = 10_000
_FIELD_WIDTH = re.compile(r"[%.:<>^=][-#0 +]*([0-9]+)")
_WIDTH_FROM_ARGUMENT = re.compile(r"%[-#0 +]*[0-9.]*\*|\{[^{}]*\{")


class Budget:
    """What is left to one rendering."""

    def __init__(self) -> None:
        self._steps = MAX_STEPS
        self._built = MAX_TOTAL_BUILT
        self._end_s = time.thread_time() + MAX_CPU_S

    def spend(self, num_steps: int = 1) -> None:
        """Take steps from the budget, or end the rendering."""
        self._steps -= num_steps
        if self._steps < 0:
            raise SecurityError(f"it takes more than {MAX_STEPS:,} loop iterations and calls")
        self.check_time()

    def check_time(self) -> None:
        """End the rendering if its processor time is over."""
        if time.thread_time() > self._end_s:
            raise SecurityError(f"it takes more than {MAX_CPU_S:g} s")

    def charge(self, value: Any) -> Any:
        """The value, once its size is taken from the budget."""
        self.check_time()
        self._built -= _length(value)
        if self._built < 0:
            raise SecurityError(f"it builds more than {MAX_TOTAL_BUILT:,} characters in all")
        return value

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
    """Refuse a filter or a method of text where its result would be too large.

    `arguments` begin with what it works on. Those not named below make a few characters of each
    one they get, at most.
    """
    size = measure(*arguments)
    text, *others = arguments
    if any(isinstance(value, int) and abs(value) > MAX_INTEGER for value in others):
        raise SecurityError(f"it calls {name} with a number over {MAX_INTEGER:,}")
    if not others:
        return
    first = others[0]
    if name == "join":
        _check_size(size + _length(text) * _length(first))
    elif name == "replace":
        _check_size(size + str(text).count(str(first)) * len(str(others[-1])))
    elif name == "indent":
        _check_size((str(text).count("\n") + 1) * (_times(first) or _length(first)))
    elif name == "expandtabs":
        _check_size(str(text).count("\t") * _times(first))
    elif name in ("wordwrap", "translate"):
        _check_size(_length(text) * measure(*others))
    elif name in ("format", "format_map"):
        _check_format(str(text), measure(*others))


def _check_format(text: str, size_of_arguments: int) -> None:
    if _WIDTH_FROM_ARGUMENT.search(text):
        raise SecurityError("it formats with a width taken from an argument")
    widths = [int(width[:9]) for width in _FIELD_WIDTH.findall(text)]
    num_fields = text.count("%") + text.count("{")
    _check_size(num_fields * (size_of_arguments + max(widths, default=0)))


def _check_integers(operator: str, left: int, right: int) -> None:
    factor = right if operator == "**" else 1
    num_bits = left.bit_length() * max(factor, 1) + right.bit_length()
    if operator in ("*", "**") and num_bits > _MAX_INTEGER_BITS:
        raise SecurityError(f"it computes a number of more than {_MAX_INTEGER_BITS:,} bits")


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def _times(value: Any) -> int:
    return max(value, 0) if isinstance(value, int) else 0
