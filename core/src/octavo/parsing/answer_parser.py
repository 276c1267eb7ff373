"""A whole answer: its reasoning first, then content and tool calls."""

from __future__ import annotations

from octavo.parsing.answer import ParsedAnswer, collect
from octavo.parsing.events import ContentDelta, Event
from octavo.parsing.reasoning import ReasoningParser
from octavo.parsing.tool_parser import ToolCallParser

__all__ = ["AnswerParser"]


class AnswerParser:
    """Feeds what the reasoning parser leaves to the tool-call parser; either may be None.

    What looks like a call inside the reasoning is reasoning.
    """

    def __init__(
        self, reasoning: ReasoningParser | None = None, tool_calls: ToolCallParser | None = None
    ) -> None:
        self._reasoning = reasoning
        self._tool_calls = tool_calls

    def feed(self, text: str) -> list[Event]:
        """More of the answer; returns the events that it settles."""
        if self._reasoning is None:
            return self._parse_content([ContentDelta(text)] if text else [])
        return self._parse_content(self._reasoning.feed(text))

    def finish(self) -> list[Event]:
        """The end of the answer; returns the events of what was held back."""
        rest = [] if self._reasoning is None else self._reasoning.finish()
        events = self._parse_content(rest)
        return events if self._tool_calls is None else events + self._tool_calls.finish()

    def parse(self, text: str) -> ParsedAnswer:
        """A whole answer at once; the parser is finished afterwards."""
        return collect([*self.feed(text), *self.finish()])

    def _parse_content(self, events: list[Event]) -> list[Event]:
        if self._tool_calls is None:
            return events
        parsed: list[Event] = []
        for event in events:
            if isinstance(event, ContentDelta):
                parsed += self._tool_calls.feed(event.text)
            else:
                parsed.append(event)
        return parsed
