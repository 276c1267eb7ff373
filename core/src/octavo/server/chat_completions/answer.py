"""A whole chat completion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from octavo.parsing import collect
from octavo.server.chat_completions.logprobs import LogprobWriter
from octavo.server.chat_completions.prompt_logprobs import prompt_logprobs_object
from octavo.server.chat_completions.reply import ReplyForm, usage_object

if TYPE_CHECKING:
    from octavo.parsing import Event, ParsedAnswer, ParsedCall
    from octavo.server.chat import AnswerDelta, ChatTurn

__all__ = ["whole_answer"]


async def whole_answer(turn: ChatTurn, form: ReplyForm) -> dict[str, Any]:
    """The object of a chat completion, once all answers of the turn have ended."""
    tokenizer = turn.model.require_tokenizer()
    writer = LogprobWriter(tokenizer, form.num_top_logprobs, form.writes_token_ids)
    choices: dict[int, _Choice] = {}
    async for delta in turn:
        choices.setdefault(delta.index, _Choice(form, writer)).add(delta)
    answer = {
        **form.head("chat.completion"),
        "choices": [{"index": index, **choices[index].written()} for index in sorted(choices)],
        "usage": usage_object(turn),
    }
    if turn.task.params.prompt_logprobs is not None:
        answer["prompt_logprobs"] = prompt_logprobs_object(turn.prompt_logprobs)
    if form.shows_token_ids:
        answer["prompt_token_ids"] = turn.prompt_token_ids
    return answer


class _Choice:
    """One answer as it grows."""

    def __init__(self, form: ReplyForm, writer: LogprobWriter) -> None:
        self._form = form
        self._writer = writer
        self._events: list[Event] = []
        self._logprobs: list[dict[str, Any]] = []
        self._token_ids: list[int] = []
        self._last: AnswerDelta | None = None

    def add(self, delta: AnswerDelta) -> None:
        """More of the answer."""
        self._events += delta.events
        self._token_ids += delta.token_ids
        if self._form.has_logprobs:
            self._logprobs += self._writer.entries(delta)
        self._last = delta

    def written(self) -> dict[str, Any]:
        """The choice without its index."""
        form, last = self._form, self._last
        logprobs = {"content": self._logprobs, "refusal": None} if form.has_logprobs else None
        choice: dict[str, Any] = {
            "message": _message(form, collect(self._events)),
            "logprobs": logprobs,
            "finish_reason": form.finish_reason(last.finish_reason if last else None),
            "stop_reason": last.stop_reason if last else None,
        }
        if form.shows_token_ids:
            choice["token_ids"] = self._token_ids
        return choice


def _message(form: ReplyForm, answer: ParsedAnswer) -> dict[str, Any]:
    calls = [call for call in answer.tool_calls if call.is_complete]
    content: str | None = form.echoed + answer.content
    if calls and not content:
        content = None
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if answer.reasoning and form.shows_reasoning:
        message["reasoning_content"] = answer.reasoning
    if calls and form.is_legacy:
        message["function_call"] = _function(calls[0])
    elif calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": _function(call)} for call in calls
        ]
    return message


def _function(call: ParsedCall) -> dict[str, str]:
    return {"name": call.name, "arguments": call.arguments}
