"""A turn under way: outputs of the engine, read as reasoning, content and tool calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from octavo.parsing import (
    AnswerParser,
    ReasoningParser,
    ToolCallEnd,
    ToolCallParser,
)
from octavo.server.chat.forcing import blamed_on, forced_outputs
from octavo.server.chat.prompt import ChatPrompt, chat_prompt
from octavo.server.chat.tools import tool_format
from octavo.server.errors import ApiError
from octavo.server.generation import EngineRequest, Generation

if TYPE_CHECKING:
    from octavo.outputs import CompletionOutput, Logprob, Logprobs
    from octavo.parsing import Event
    from octavo.server.chat.task import ChatTask
    from octavo.server.served_model import ServedModel

__all__ = ["AnswerDelta", "ChatTurn", "ChatUsage"]


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """What is new of one answer; there is one for each output of the engine, events or not."""

    index: int
    events: list[Event]
    token_ids: list[int]
    logprobs: Logprobs | None
    finish_reason: str | None
    """"stop", "length", "tool_calls", "abort"; None while the answer goes on."""
    stop_reason: int | str | None


@dataclass(slots=True)
class ChatUsage:
    """Tokens of a turn so far, all answers together."""

    prompt_tokens: int
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0


class _AnswerReader:
    """Reads one answer; a second of n has a parser of its own."""

    def __init__(self, model: ServedModel, task: ChatTask, prompt: ChatPrompt) -> None:
        self._reasoning = (
            None if model.reasoning is None else ReasoningParser(model.reasoning, prompt.text)
        )
        called = tool_format(model, task)
        calls = (
            None
            if called is None
            else ToolCallParser(called, task.tools, stream_arguments=task.streams_arguments)
        )
        self._parser = AnswerParser(self._reasoning, calls)
        self._has_calls = False

    @property
    def is_reasoning(self) -> bool:
        """Whether what has been read ends inside the reasoning."""
        return self._reasoning is not None and self._reasoning.is_reasoning

    def read(self, output: CompletionOutput) -> AnswerDelta:
        events = self._parser.feed(output.text)
        if output.finished:
            events += self._parser.finish()
        self._has_calls |= any(
            isinstance(event, ToolCallEnd) and event.is_complete for event in events
        )
        reason = output.finish_reason
        return AnswerDelta(
            index=output.index,
            events=events,
            token_ids=output.token_ids,
            logprobs=output.logprobs,
            finish_reason="tool_calls" if reason == "stop" and self._has_calls else reason,
            stop_reason=output.stop_reason,
        )


class ChatTurn:
    """The answers to one conversation, as an async iterator of AnswerDelta.

    ``close`` must be called at the end, whatever happens; it ends what still runs.
    """

    def __init__(
        self, model: ServedModel, task: ChatTask, prompt: ChatPrompt, generation: Generation
    ) -> None:
        self.model = model
        self.task = task
        self.prompt = prompt
        self.prompt_token_ids = generation.streams[0].prompt_token_ids
        """As the engine took them: perhaps truncated."""
        self.prompt_logprobs: list[dict[int, Logprob] | None] | None = None
        """Complete once the turn has ended; None unless they were asked for."""
        self.usage = ChatUsage(len(self.prompt_token_ids))
        self._generation = generation
        self._readers: dict[int, _AnswerReader] = {}

    @classmethod
    async def open(cls, model: ServedModel, task: ChatTask, request_id: str) -> ChatTurn:
        """Render the prompt and queue the request; raises ApiError if it cannot be taken."""
        prompt = await chat_prompt(model, task)
        _check_length(len(prompt.token_ids), task)
        params = replace(
            task.params,
            structured_outputs=forced_outputs(model, task, prompt.text),
            kept_special_tokens=_kept_special_tokens(model, task),
        )
        request = EngineRequest(
            {"prompt": prompt.text, "prompt_token_ids": prompt.token_ids},
            params,
            task.priority,
            task.cache_salt,
        )
        try:
            generation = await Generation.open(model.engine, request_id, [request])
        except ApiError as error:
            raise blamed_on(error, task) from error
        return cls(model, task, prompt, generation)

    def close(self) -> None:
        """End what still runs."""
        self._generation.close()

    async def __aiter__(self) -> AsyncIterator[AnswerDelta]:
        async for _, output in self._generation:
            self.usage.cached_tokens = output.num_cached_tokens
            self.prompt_logprobs = output.prompt_logprobs
            for answer in output.outputs:
                reader = self._reader(answer.index)
                delta = reader.read(answer)
                self.usage.completion_tokens += len(answer.token_ids)
                if reader.is_reasoning:
                    self.usage.reasoning_tokens += len(answer.token_ids)
                yield delta

    def _reader(self, index: int) -> _AnswerReader:
        if index not in self._readers:
            self._readers[index] = _AnswerReader(self.model, self.task, self.prompt)
        return self._readers[index]


def _check_length(num_tokens: int, task: ChatTask) -> None:
    limit, kept = task.max_prompt_tokens, task.params.truncate_prompt_tokens
    if limit is None or num_tokens <= limit or (kept is not None and 0 < kept <= limit):
        return
    raise ApiError(
        f"The prompt has {num_tokens} tokens; this server takes at most {limit} "
        "(--max-prompt-tokens). Shorten the conversation.",
        param="messages",
        code="context_length_exceeded",
    )


def _kept_special_tokens(model: ServedModel, task: ChatTask) -> list[int]:
    """The marks of calls and of reasoning, which parsers have to see."""
    tokenizer, called = model.require_tokenizer(), tool_format(model, task)
    names = [] if called is None else [*called.special_tokens]
    if model.reasoning is not None:
        names += [model.reasoning.begin, model.reasoning.end, *model.reasoning.special_tokens]
    token_ids = {tokenizer.token_to_id(name) for name in names}
    return sorted(token_id for token_id in token_ids if token_id is not None)
