"""An answer's output: its items in order, and the events by which they grow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from octavo.parsing import (
    ContentDelta,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallBegin,
)
from octavo.server.responses.open_items import OpenCall, OpenItem, OpenMessage, OpenReasoning

if TYPE_CHECKING:
    from octavo.parsing import Event
    from octavo.server.chat import AnswerDelta
    from octavo.server.chat_completions.logprobs import LogprobWriter
    from octavo.server.responses.open_items import StreamEvent
    from octavo.server.responses.reply import ReplyForm

__all__ = ["ResponseOutput"]


class ResponseOutput:
    """Grows with every delta of the answer; ``items`` are those that have ended."""

    def __init__(self, form: ReplyForm, writer: LogprobWriter | None) -> None:
        """``writer`` is None where no log-probabilities were asked for."""
        self.items: list[dict[str, Any]] = []
        self._form = form
        self._writer = writer
        self._open: OpenItem | None = None
        # Tokens whose text has not come out yet, as it might begin something else.
        self._logprobs: list[dict[str, Any]] = []

    def add(self, delta: AnswerDelta) -> list[StreamEvent]:
        """More of the answer."""
        if self._writer is not None:
            self._logprobs += self._writer.entries(delta)
        events: list[StreamEvent] = []
        for event in delta.events:
            events += self._add(event)
        return events

    def end(self, is_complete: bool) -> list[StreamEvent]:
        """The end of the answer; the item that it breaks off in is incomplete."""
        events: list[StreamEvent] = []
        if not self.items and self._open is None:
            events += self._begin(self._message())
        return events + self._end("completed" if is_complete else "incomplete")

    def _add(self, event: Event) -> list[StreamEvent]:
        match event:
            case ContentDelta(text):
                return self._say(text)
            case ReasoningDelta(text):
                return self._think(text)
            case ToolCallBegin(id=call_id, name=name):
                self._logprobs.clear()
                return self._begin(OpenCall(self._next_index(), call_id, name))
            case ToolCallArguments(text=text):
                self._logprobs.clear()
                assert isinstance(self._open, OpenCall)  # noqa: S101 - begun before
                return [self._open.add(text)] if text else []
            case _:
                self._logprobs.clear()
                return self._end("completed" if event.is_complete else "incomplete")

    def _say(self, text: str) -> list[StreamEvent]:
        begun: list[StreamEvent] = []
        if not isinstance(self._open, OpenMessage):
            begun = self._begin(self._message())
        assert isinstance(self._open, OpenMessage)  # noqa: S101 - begun just now
        logprobs, self._logprobs = self._logprobs, []
        return [*begun, self._open.say(text, logprobs)]

    def _think(self, text: str) -> list[StreamEvent]:
        self._logprobs.clear()
        begun: list[StreamEvent] = []
        if not isinstance(self._open, OpenReasoning):
            begun = self._begin(OpenReasoning(self._next_index(), self._form.seals_reasoning))
        assert isinstance(self._open, OpenReasoning)  # noqa: S101 - begun just now
        return [*begun, self._open.add(text)]

    def _message(self) -> OpenMessage:
        return OpenMessage(self._next_index(), self._writer is not None)

    def _next_index(self) -> int:
        return len(self.items) + (self._open is not None)

    def _begin(self, item: OpenItem) -> list[StreamEvent]:
        ended = self._end("completed")
        self._open = item
        return [*ended, *item.begin()]

    def _end(self, status: str) -> list[StreamEvent]:
        item, self._open = self._open, None
        if item is None:
            return []
        events = item.end(status)
        self.items.append(item.item)
        return events
