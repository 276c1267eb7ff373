"""Text that arrives in pieces, for readers that are generators and wait for more.

A reader yields where it needs text that is not there yet, and goes on when it is resumed. What it
decides depends on the text alone, never on how the text was cut. What has been read is dropped, so
no character is looked at again however many pieces there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import TypeAlias, TypeVar

__all__ = ["Cursor", "MalformedCall", "Put", "Reader", "ignore"]

T = TypeVar("T")
Reader: TypeAlias = Generator[None, None, T]
"""A generator that yields where it waits for more text, and returns a T."""

Put: TypeAlias = Callable[[str], object]
"""Takes the text that a reader has read, in pieces."""


class MalformedCall(Exception):  # noqa: N818 - raised and caught within parsing: no error of a user
    """What looked like a call is none; it comes out as content."""


def ignore(_text: str) -> None:
    """A `Put` for text that nobody needs."""


class Cursor:
    """A place in a text whose end is not known yet."""

    def __init__(self) -> None:
        self._text = ""
        self._position = 0
        self._is_ended = False
        self._taken: list[str] | None = None
        self._room_chars = 0
        self.num_examined_chars = 0
        """How many characters readers have looked at, each as often as it was."""

    def feed(self, text: str) -> None:
        """Append text; what is unread is a few characters at most, so copying it is cheap."""
        self._text = self._text[self._position :] + text
        self._position = 0

    def end(self) -> None:
        """Say that no more text will come."""
        self._is_ended = True

    def mark(self, max_chars: int) -> None:
        """Remember from here on what is taken, and refuse to take more than `max_chars`."""
        self._taken, self._room_chars = [], max_chars

    def unmark(self) -> str:
        """Forget the mark; returns what was taken since."""
        taken, self._taken = self._taken or [], None
        return "".join(taken)

    def take(self, num_chars: int) -> str:
        """The next characters, which must be there. Raises MalformedCall where there is no room."""
        if self._taken is None:
            return self._advance(num_chars)
        text = self._advance(min(num_chars, self._room_chars))
        self._taken.append(text)
        self._room_chars -= len(text)
        if len(text) < num_chars:
            raise MalformedCall("the call is longer than max_call_chars")
        return text

    def peek(self) -> Reader[str]:
        """The next character, or "" at the end."""
        while self._position == len(self._text):
            if self._is_ended:
                return ""
            yield
        self.num_examined_chars += 1
        return self._text[self._position]

    def run(self, pattern: re.Pattern[str], put: Put = ignore) -> Reader[None]:
        """Take the longest run of a pattern of the form ``[...]*``."""
        while True:
            match = pattern.match(self._text, self._position)
            length = match.end() - self._position if match else 0
            self.num_examined_chars += length + 1
            if length:
                put(self.take(length))
            if self._is_ended or self._position < len(self._text):
                return
            yield

    def sees(self, literal: str) -> Reader[bool]:
        """Whether `literal` comes next; takes nothing."""
        while True:
            there = self._text[self._position : self._position + len(literal)]
            self.num_examined_chars += len(there)
            if len(there) == len(literal) or self._is_ended or not literal.startswith(there):
                return there == literal
            yield

    def literal(self, literal: str, put: Put = ignore) -> Reader[bool]:
        """Take `literal` if it comes next; returns whether it did."""
        is_there = yield from self.sees(literal)
        if is_there:
            put(self.take(len(literal)))
        return is_there

    def require(self, literal: str, put: Put = ignore) -> Reader[None]:
        """Take `literal`. Raises MalformedCall if something else comes next, or nothing."""
        if not (yield from self.literal(literal, put)):
            raise MalformedCall(f"expected {literal!r}")

    def until(self, stop: str, put: Put = ignore) -> Reader[bool]:
        """Take everything before `stop`, and `stop` without putting it; False where none comes."""
        while True:
            self.num_examined_chars += len(self._text) - self._position
            found = self._text.find(stop, self._position)
            end = found if found >= 0 else len(self._text)
            if found < 0 and not self._is_ended:
                end -= self._num_chars_that_may_begin(stop)
            if end > self._position:
                put(self.take(end - self._position))
            if found >= 0:
                self.take(len(stop))
                return True
            if self._is_ended:
                return False
            yield

    def _num_chars_that_may_begin(self, stop: str) -> int:
        longest = min(len(stop) - 1, len(self._text) - self._position)
        ends = (length for length in range(longest, 0, -1) if self._text.endswith(stop[:length]))
        return next(ends, 0)

    def _advance(self, num_chars: int) -> str:
        text = self._text[self._position : self._position + num_chars]
        self._position += len(text)
        return text
