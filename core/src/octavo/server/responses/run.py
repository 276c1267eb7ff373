"""A response being made: from the deltas of a turn to events and the response object."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from octavo.errors import OctavoError
from octavo.server.chat_completions.logprobs import LogprobWriter
from octavo.server.errors import ApiError, api_error_of
from octavo.server.responses.output import ResponseOutput
from octavo.server.responses.reply import usage_object

if TYPE_CHECKING:
    from octavo.server.chat import ChatTurn
    from octavo.server.responses.open_items import StreamEvent
    from octavo.server.responses.reply import ReplyForm

__all__ = ["ResponseRun"]

_ERROR_CODES = {429: "rate_limit_exceeded", 400: "invalid_prompt"}


class ResponseRun:
    """Makes one response out of one turn. ``close`` must be called at the end."""

    def __init__(self, turn: ChatTurn, response: dict[str, Any], form: ReplyForm) -> None:
        """``response`` is filled in as the answer grows."""
        self.response = response
        self.error: ApiError | None = None
        """Why the response has failed."""
        self._turn = turn
        writer = LogprobWriter(turn.model.require_tokenizer(), form.num_top_logprobs)
        self._output = ResponseOutput(form, writer if form.has_logprobs else None)
        self._num_events = 0

    def close(self) -> list[StreamEvent]:
        """End what still runs; a response that has not ended is cancelled, as the events say."""
        self._turn.close()
        if self.response["status"] not in ("queued", "in_progress"):
            return []
        self.response["status"] = "cancelled"
        events = self._output.end(is_complete=False)
        self._settle()
        error = ApiError("The response was cancelled.", code="response_cancelled")
        return [*map(self._numbered, [*events, _error_event(error)])]

    async def events(self) -> AsyncIterator[StreamEvent]:
        """All events, numbered, from response.created to the end; errors become events."""
        yield self._lifecycle("response.created")
        is_queued = self.response["status"] == "queued"
        yield self._lifecycle("response.queued" if is_queued else "response.in_progress")
        try:
            async for delta in self._turn:
                if self.response["status"] == "queued":
                    self.response["status"] = "in_progress"
                    yield self._lifecycle("response.in_progress")
                for event in self._output.add(delta):
                    yield self._numbered(event)
                if delta.finish_reason is not None:
                    for event in self._end(delta.finish_reason):
                        yield self._numbered(event)
        except (ApiError, OctavoError) as error:
            for event in self.fail(error):
                yield event
        else:
            yield self._lifecycle(f"response.{self.response['status']}")

    def fail(self, error: ApiError | OctavoError) -> list[StreamEvent]:
        """Let the response fail; the events that tell of it, numbered."""
        self.error = error if isinstance(error, ApiError) else api_error_of(error)
        events = self._output.end(is_complete=False)
        code = _ERROR_CODES.get(self.error.status, "server_error")
        self.response["status"] = "failed"
        self.response["error"] = {"code": code, "message": self.error.message}
        self._settle()
        told = [*events, _error_event(self.error)]
        return [*map(self._numbered, told), self._lifecycle("response.failed")]

    def _end(self, finish_reason: str) -> list[StreamEvent]:
        if finish_reason == "abort":
            raise ApiError(
                "The engine has ended the request before it was complete.",
                status=503,
                code="request_aborted",
            )
        is_complete = finish_reason != "length"
        events = self._output.end(is_complete)
        self.response["status"] = "completed" if is_complete else "incomplete"
        if is_complete:
            self.response["completed_at"] = int(time.time())
        else:
            self.response["incomplete_details"] = {"reason": "max_output_tokens"}
        self._settle()
        return events

    def _settle(self) -> None:
        self.response["output"] = self._output.items
        self.response["usage"] = usage_object(self._turn.usage)

    def _lifecycle(self, kind: str) -> StreamEvent:
        return self._numbered({"type": kind, "response": {**self.response}})

    def _numbered(self, event: StreamEvent) -> StreamEvent:
        event["sequence_number"] = self._num_events
        self._num_events += 1
        return event


def _error_event(error: ApiError) -> StreamEvent:
    return {"type": "error", "code": error.code, "message": error.message, "param": error.param}
