"""A completion's answer as a stream of server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from octavo.errors import OctavoError
from octavo.server.completions.logprobs import MANY_TOKENS
from octavo.server.errors import ApiError, api_error_of
from octavo.server.event_stream import on_one_line, sse

if TYPE_CHECKING:
    from octavo.outputs import CompletionOutput, RequestOutput
    from octavo.server.completions.choice import ChoiceWriter
    from octavo.server.completions.run import CompletionRun

__all__ = ["completion_events"]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


async def completion_events(run: CompletionRun, head: dict[str, Any]) -> AsyncIterator[bytes]:
    """What is new of the answers, perhaps the usage, [DONE]; ``head`` is what each begins with.

    All that comes out of one step is sent together. Closes the run.
    """
    writer = _EventWriter(run, head)
    try:
        async for prompt_index, output in run:
            if writer.is_large(prompt_index, output):
                events = await asyncio.to_thread(writer.events, prompt_index, output)
            else:
                events = writer.events(prompt_index, output)
            if events:
                yield events
        if run.task.has_usage:
            yield sse({**head, "choices": [], "usage": run.usage()})
    except ApiError as error:
        yield sse(error.body())
    except OctavoError as error:
        yield sse(api_error_of(error).body())
    finally:
        run.close()
    yield sse("[DONE]")


class _EventWriter:
    """Makes events of outputs; the usual one is put together from text that is ready."""

    def __init__(self, run: CompletionRun, head: dict[str, Any]) -> None:
        self._run = run
        self._writers: dict[int, ChoiceWriter] = {}
        self._head = f'data: {_encode(head)[:-1]},"choices":[{{"index":'
        self._usage = ',"usage":null' if run.task.has_usage else ""
        self._rest = f',"logprobs":null,"finish_reason":null,"stop_reason":null}}]{self._usage}}}'

    def is_large(self, prompt_index: int, output: RequestOutput) -> bool:
        """Whether the events of an output hold a long prompt's log-probabilities."""
        task, rows = self._run.task, output.prompt_logprobs
        if not task.echo or rows is None or len(rows) <= MANY_TOKENS:
            return False
        return prompt_index * task.num_choices not in self._writers

    def events(self, prompt_index: int, output: RequestOutput) -> bytes:
        """An event for each answer that there is news of."""
        task = self._run.task
        first = prompt_index * task.num_choices
        if task.is_scoring:  # one answer stands for all
            answers = list(enumerate(output.outputs * task.num_choices, first))
        else:
            answers = [(first + answer.index, answer) for answer in output.outputs]
        events = [self._event(index, prompt_index, answer, output) for index, answer in answers]
        return "".join(events).encode("utf-8", "replace")

    def _event(
        self, index: int, prompt_index: int, answer: CompletionOutput, output: RequestOutput
    ) -> str:
        writer = self._writers.get(index)
        if writer is None:
            writer = self._writers[index] = self._run.writer(prompt_index)
        has_usage = self._run.task.has_continuous_usage
        if writer.is_plain and answer.finish_reason is None and not has_usage:
            text = on_one_line(encode_basestring(answer.text))
            return f'{self._head}{index},"text":{text}{self._rest}\n\n'
        choice = writer.write(answer, output.prompt_logprobs)
        usage = f',"usage":{_encode(self._run.usage())}' if has_usage else self._usage
        return on_one_line(f"{self._head}{index},{_encode(choice)[1:]}]{usage}}}\n\n")
