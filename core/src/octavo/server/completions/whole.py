"""A completion's answer in one piece."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from octavo.server.chat_completions.prompt_logprobs import prompt_logprobs_object
from octavo.server.completions.logprobs import MANY_TOKENS
from octavo.server.engines.output_queue import merge_deltas

if TYPE_CHECKING:
    from octavo.outputs import CompletionOutput, RequestOutput
    from octavo.server.completions.run import CompletionRun

__all__ = ["whole_completion"]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


async def whole_completion(run: CompletionRun, head: dict[str, Any]) -> bytes:
    """The JSON of all answers, once all have ended; ``head`` is what it begins with."""
    outputs: list[list[RequestOutput]] = [[] for _ in run.prompts]
    async for prompt_index, output in run:
        outputs[prompt_index].append(output)

    def encode() -> bytes:
        body = {**head, "choices": _choices(run, outputs), "usage": run.usage()}
        return _encode(body).encode("utf-8", "replace")

    has_logprobs = run.task.num_logprobs is not None or run.task.has_prompt_logprobs
    num_tokens = run.usage()["total_tokens"]
    is_large = has_logprobs and num_tokens > MANY_TOKENS
    return await asyncio.to_thread(encode) if is_large else encode()


def _choices(run: CompletionRun, outputs: Sequence[Sequence[RequestOutput]]) -> list[Any]:
    choices: list[dict[str, Any]] = []
    for prompt_index, deltas in enumerate(outputs):
        rows = next((d.prompt_logprobs for d in deltas if d.prompt_logprobs is not None), None)
        for answer in _chosen(run, merge_deltas(deltas).outputs):
            choice = run.writer(prompt_index).write(answer, rows)
            if run.task.has_prompt_logprobs:
                choice["prompt_logprobs"] = prompt_logprobs_object(rows)
            choices.append({"index": len(choices), **choice})
    return choices


def _chosen(run: CompletionRun, answers: Sequence[CompletionOutput]) -> Sequence[CompletionOutput]:
    """The answers that are returned; of more than those, the best first."""
    task = run.task
    if task.is_scoring:
        return [answers[0]] * task.num_choices
    if not task.picks_best:
        return answers
    return sorted(answers, key=_mean_logprob, reverse=True)[: task.num_choices]


def _mean_logprob(answer: CompletionOutput) -> float:
    """What OpenAI's best_of goes by: the log-probability per token."""
    return (answer.cumulative_logprob or 0.0) / max(len(answer.token_ids), 1)
