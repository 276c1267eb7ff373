"""A message being made: from the deltas of a turn to events and the message object."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from octavo.errors import OctavoError
from octavo.parsing import ContentDelta, ReasoningDelta, ToolCallArguments, ToolCallBegin
from octavo.server.errors import ApiError, api_error_of
from octavo.server.messages.blocks import OpenBlock, OpenText, OpenThinking, OpenToolUse

if TYPE_CHECKING:
    from octavo.parsing import Event
    from octavo.server.chat import AnswerDelta, ChatTurn
    from octavo.server.messages.blocks import StreamEvent

__all__ = ["MessageRun"]


class MessageRun:
    """Makes one message out of one turn. ``close`` must be called at the end."""

    def __init__(
        self,
        turn: ChatTurn,
        message_id: str,
        *,
        stop_sequences: Sequence[str] = (),
        shows_thinking: bool = True,
    ) -> None:
        self.message: dict[str, Any] = {
            "id": message_id,
            "type": "message",
            "role": "assistant",
            "model": turn.model.name,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {},
        }
        self.error: ApiError | None = None
        """Why there is no message."""
        self._turn = turn
        self._stop_sequences = stop_sequences
        self._shows_thinking = shows_thinking
        self._blocks: list[dict[str, Any]] = []
        self._open: OpenBlock | None = None

    def close(self) -> None:
        """End what still runs."""
        self._turn.close()

    async def events(self) -> AsyncIterator[StreamEvent]:
        """All events, from message_start to message_stop or an error.

        The first comes with the first tokens: only then is it known how many were cached.
        """
        has_begun = False
        try:
            async for delta in self._turn:
                if not has_begun:
                    has_begun = True
                    yield self._start()
                    yield {"type": "ping"}
                for event in self._read(delta):
                    yield event
        except (ApiError, OctavoError) as error:
            self.error = error if isinstance(error, ApiError) else api_error_of(error)
            yield self.error.anthropic_body()

    def _read(self, delta: AnswerDelta) -> list[StreamEvent]:
        events = [told for event in delta.events for told in self._add(event)]
        if delta.finish_reason is not None:
            events += self._end(delta)
        return events

    def _add(self, event: Event) -> list[StreamEvent]:
        match event:
            case ContentDelta(text):
                begun = [] if isinstance(self._open, OpenText) else self._begin(OpenText)
                assert isinstance(self._open, OpenText)  # noqa: S101 - begun just now
                return begun + self._open.add(text)
            case ReasoningDelta(text):
                begun = [] if isinstance(self._open, OpenThinking) else self._begin_thinking()
                assert isinstance(self._open, OpenThinking)  # noqa: S101 - begun just now
                return begun + self._open.add(text)
            case ToolCallBegin(id=call_id, name=name):
                return self._begin(lambda index: OpenToolUse(index, call_id, name))
            case ToolCallArguments(text=text):
                assert isinstance(self._open, OpenToolUse)  # noqa: S101 - begun before
                return self._open.add(text)
        return self._end_block()

    def _begin_thinking(self) -> list[StreamEvent]:
        return self._begin(lambda index: OpenThinking(index, self._shows_thinking))

    def _begin(self, make: Any) -> list[StreamEvent]:
        ended = self._end_block()
        block: OpenBlock = make(len(self._blocks))
        self._open = block
        return [*ended, block.begin()]

    def _end_block(self) -> list[StreamEvent]:
        block, self._open = self._open, None
        if block is None:
            return []
        events = block.end()
        self._blocks.append(block.block)
        return events

    def _end(self, delta: AnswerDelta) -> list[StreamEvent]:
        events = self._end_block()
        end = self._stop(delta)
        self.message |= {"content": self._blocks, "usage": self._usage(), **end}
        told = {
            "type": "message_delta",
            "delta": {**end},
            "usage": self.message["usage"],
        }
        return [*events, told, {"type": "message_stop"}]

    def _stop(self, delta: AnswerDelta) -> dict[str, Any]:
        reason, stop_sequence = "end_turn", None
        match delta.finish_reason:
            case "abort":
                raise ApiError(
                    "The engine has ended the request before it was complete.",
                    status=503,
                    code="request_aborted",
                )
            case "tool_calls":
                reason = "tool_use"
            case "length":
                reason = "model_context_window_exceeded" if self._is_full else "max_tokens"
            case _ if delta.stop_reason in self._stop_sequences:
                reason, stop_sequence = "stop_sequence", delta.stop_reason
        return {"stop_reason": reason, "stop_sequence": stop_sequence}

    @property
    def _is_full(self) -> bool:
        """Whether it was the context that ended the answer, not max_tokens."""
        wanted = self._turn.task.params.max_tokens
        return wanted is not None and self._turn.usage.completion_tokens < wanted

    def _start(self) -> StreamEvent:
        usage = {**self._usage(), "output_tokens": 0}
        return {"type": "message_start", "message": {**self.message, "usage": usage}}

    def _usage(self) -> dict[str, Any]:
        usage = self._turn.usage
        return {
            "input_tokens": usage.prompt_tokens - usage.cached_tokens,
            "cache_creation_input_tokens": 0,  # nobody is charged for it
            "cache_read_input_tokens": usage.cached_tokens,
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
            "service_tier": "standard",
        }
