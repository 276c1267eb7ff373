"""A chat completion as a stream of chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from octavo.errors import OctavoError
from octavo.parsing import ContentDelta, ReasoningDelta, ToolCallArguments, ToolCallBegin
from octavo.server.chat_completions.logprobs import LogprobWriter
from octavo.server.chat_completions.reply import ReplyForm, usage_object
from octavo.server.errors import ApiError, api_error_of
from octavo.server.event_stream import sse

if TYPE_CHECKING:
    from octavo.parsing import Event
    from octavo.server.chat import AnswerDelta, ChatTurn

__all__ = ["stream_chunks"]


async def stream_chunks(turn: ChatTurn, form: ReplyForm) -> AsyncIterator[bytes]:
    """Server-sent events: the role, deltas, the end of each answer, perhaps usage, [DONE].

    Closes the turn.
    """
    writer = _ChunkWriter(turn, form)
    try:
        for event in writer.first():
            yield event
        async for delta in turn:
            for event in writer.chunks(delta):
                yield event
        if form.has_usage:
            yield writer.usage()
    except ApiError as error:
        yield sse(error.body())
    except OctavoError as error:
        yield sse(api_error_of(error).body())
    finally:
        turn.close()
    yield sse("[DONE]")


class _ChunkWriter:
    """Makes chunks of deltas; keeps what must not be repeated."""

    def __init__(self, turn: ChatTurn, form: ReplyForm) -> None:
        self._turn = turn
        self._form = form
        self._head = form.head("chat.completion.chunk")
        tokenizer = turn.model.require_tokenizer()
        self._logprobs = (
            LogprobWriter(tokenizer, form.num_top_logprobs, form.writes_token_ids)
            if form.has_logprobs
            else None
        )

    def first(self) -> Iterator[bytes]:
        """Who speaks, for each answer."""
        for index in range(self._turn.task.params.n):
            delta = {"role": "assistant", "content": self._form.echoed, "refusal": None}
            more: dict[str, Any] = {}
            if self._form.shows_token_ids and index == 0:
                more["prompt_token_ids"] = self._turn.prompt_token_ids
            yield self._chunk({**self._choice(index, delta), "finish_reason": None}, more)

    def chunks(self, delta: AnswerDelta) -> Iterator[bytes]:
        """What an output of the engine comes to; all its tokens belong to its first chunk."""
        deltas = [written for event in delta.events if (written := self._delta(event)) is not None]
        carries = self._carried(delta)
        if not deltas and carries:
            deltas.append({})
        for position, written in enumerate(deltas):
            choice = self._choice(delta.index, written)
            if position == 0:
                choice |= carries
            choice["finish_reason"] = None
            yield self._chunk(choice)
        if delta.finish_reason is not None:
            choice = self._choice(delta.index, {})
            choice["finish_reason"] = self._form.finish_reason(delta.finish_reason)
            choice["stop_reason"] = delta.stop_reason
            yield self._chunk(choice)

    def usage(self) -> bytes:
        """The last chunk, which belongs to no answer."""
        return sse({**self._head, "choices": [], "usage": usage_object(self._turn)})

    def _carried(self, delta: AnswerDelta) -> dict[str, Any]:
        carried: dict[str, Any] = {}
        if self._logprobs is not None:
            entries = self._logprobs.entries(delta)
            if entries:
                carried["logprobs"] = {"content": entries, "refusal": None}
        if self._form.shows_token_ids and delta.token_ids:
            carried["token_ids"] = delta.token_ids
        return carried

    def _choice(self, index: int, delta: dict[str, Any]) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None}

    def _chunk(self, choice: dict[str, Any], more: dict[str, Any] | None = None) -> bytes:
        chunk = {**self._head, "choices": [choice]}
        if self._form.has_continuous_usage:
            chunk["usage"] = usage_object(self._turn)
        elif self._form.has_usage:
            chunk["usage"] = None
        return sse(chunk | more if more else chunk)

    def _delta(self, event: Event) -> dict[str, Any] | None:
        match event:
            case ContentDelta():
                return {"content": event.text}
            case ReasoningDelta():
                return {"reasoning_content": event.text} if self._form.shows_reasoning else None
            case ToolCallBegin() | ToolCallArguments():
                has_room = event.index == 0 or not self._form.is_legacy
                return self._call_delta(event) if has_room else None
        return None

    def _call_delta(self, event: ToolCallBegin | ToolCallArguments) -> dict[str, Any]:
        if isinstance(event, ToolCallBegin):
            function = {"name": event.name, "arguments": ""}
            call = {"index": event.index, "id": event.id, "type": "function", "function": function}
        else:
            function = {"arguments": event.text}
            call = {"index": event.index, "function": function}
        return {"function_call": function} if self._form.is_legacy else {"tool_calls": [call]}
