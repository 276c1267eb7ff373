"""What a format's reader works with: the text, the calls it finds, and the declared functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from octavo.parsing.calls import CallSink
from octavo.parsing.cursor import Cursor, Reader
from octavo.parsing.json_reader import read_space
from octavo.parsing.limits import ParsingLimits
from octavo.parsing.tools import ToolDefinition

__all__ = ["CallReading"]


@dataclass(frozen=True)
class CallReading:
    """One attempt to read calls, from an opener on.

    What is taken from `cursor` and not yet behind a `commit` becomes content if the reader raises
    MalformedCall, or when it returns. Reading goes on where the reader stopped, so nothing is read
    twice.
    """

    cursor: Cursor
    call: CallSink
    tools: Mapping[str, ToolDefinition]
    limits: ParsingLimits

    def commit(self) -> None:
        """What has been taken is syntax of calls, and done with."""
        self.cursor.mark(self.limits.max_call_chars)

    def complete_call(self) -> None:
        """The call is whole, whatever follows."""
        self.call.complete()
        self.commit()

    def swallow(self, *closers: str) -> Reader[None]:
        """Take those of the closing tags that are there, in order, with white space before them."""
        for closer in closers:
            yield from read_space(self.cursor)
            if (yield from self.cursor.literal(closer)):
                self.commit()
