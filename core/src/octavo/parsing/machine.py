"""What parsers have in common: text is fed in pieces, events come out, until the text ends."""

from __future__ import annotations

from abc import ABC, abstractmethod

from octavo.errors import UsageError
from octavo.parsing.cursor import Cursor, Reader
from octavo.parsing.events import Event

__all__ = ["Machine"]


class Machine(ABC):
    """A parser around a generator that reads from a cursor and adds to ``_events``."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._events: list[Event] = []
        self._is_finished = False
        self._reader = self._run()

    @property
    def num_examined_chars(self) -> int:
        """How many characters have been looked at, each as often as it was."""
        return self._cursor.num_examined_chars

    def feed(self, text: str) -> list[Event]:
        """More of the answer; returns the events that it settles."""
        self._check_running()
        if text:
            self._cursor.feed(text)
            next(self._reader)
        return self._drain()

    def finish(self) -> list[Event]:
        """The end of the answer; returns the events of what was held back."""
        self._check_running()
        self._is_finished = True
        self._cursor.end()
        for _ in self._reader:
            raise AssertionError("a reader waits for text behind the end")
        return self._drain()

    @abstractmethod
    def _run(self) -> Reader[None]:
        """Read to the end of the text; yield only where text is missing."""

    def _drain(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _check_running(self) -> None:
        if self._is_finished:
            raise UsageError("The answer was finished: parse another one with a new parser.")
