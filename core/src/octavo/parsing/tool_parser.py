"""Tool calls out of an answer, as it arrives."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from octavo.parsing.calls import CallSink
from octavo.parsing.content import ContentSink
from octavo.parsing.cursor import Cursor, MalformedCall, Reader
from octavo.parsing.events import Event
from octavo.parsing.limits import ParsingLimits
from octavo.parsing.machine import Machine
from octavo.parsing.reading import CallReading
from octavo.parsing.tool_format import ToolCallFormat
from octavo.parsing.tools import tool_definitions

__all__ = ["ToolCallParser"]


class ToolCallParser(Machine):
    """Splits an answer into content and calls of one format.

    `tools` is OpenAI's list; calls of other functions are reported with ``is_known=False``. A call
    is held back until it is complete, and one that is malformed or breaks off is content, unless
    `stream_arguments` asks for arguments as they arrive. `new_id` makes the ids of calls.
    """

    def __init__(
        self,
        tool_format: ToolCallFormat,
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        limits: ParsingLimits | None = None,
        stream_arguments: bool = False,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        limits = limits or ParsingLimits()
        definitions = {tool.name: tool for tool in tool_definitions(tools)}
        self._format = tool_format
        self._content = ContentSink(self._emit)
        self._calls = CallSink(
            self._emit,
            self._content,
            definitions.keys(),
            new_id or tool_format.new_id,
            max_calls=limits.max_calls,
            stream_arguments=stream_arguments,
        )
        cursor = Cursor()
        self._reading = CallReading(cursor, self._calls, definitions, limits)
        first_chars = "".join(sorted({opener.text[0] for opener in tool_format.openers}))
        self._plain = re.compile(f"[^{re.escape(first_chars)}]*")
        super().__init__(cursor)

    def _run(self) -> Reader[None]:
        cursor, reading = self._cursor, self._reading
        while (yield from self._read_to_opener()):
            reading.commit()
            try:
                yield from self._format.read(reading)
                is_cut_off = False
            except MalformedCall:
                is_cut_off = self._calls.abandon()
            uncommitted = cursor.unmark()
            if not is_cut_off:
                self._content.put(uncommitted)
        self._content.finish()

    def _read_to_opener(self) -> Reader[bool]:
        """Take content; whether a call may begin here, or else the answer has ended."""
        cursor = self._cursor
        while True:
            yield from cursor.run(self._plain, self._content.put)
            if not (yield from cursor.peek()):
                return False
            for opener in self._format.openers:
                if opener.at_line_start and not self._content.is_line_blank:
                    continue
                if (yield from cursor.sees(opener.text)):
                    return True
            self._content.put(cursor.take(1))

    def _emit(self, event: Event) -> None:
        self._events.append(event)
