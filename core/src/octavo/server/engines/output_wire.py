"""Outputs between two processes: without what the client knows, as small tuples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from octavo.outputs import CompletionOutput, RequestMetrics, RequestOutput

if TYPE_CHECKING:
    from octavo.outputs import Logprob

__all__ = ["PackedOutput", "pack_output", "unpack_output"]

PromptLogprobs: TypeAlias = "list[dict[int, Logprob] | None]"
PackedOutput: TypeAlias = tuple[Any, ...]
"""(answers, finished, new prompt logprobs, cached tokens, metrics, error)"""


def pack_output(output: RequestOutput, num_known_logprobs: int) -> PackedOutput:
    """All but the prompt; of its log-probabilities those that the client does not have yet."""
    return (
        [
            (
                answer.index,
                answer.text,
                answer.token_ids,
                answer.cumulative_logprob,
                answer.logprobs,
                answer.finish_reason,
                answer.stop_reason,
            )
            for answer in output.outputs
        ],
        output.finished,
        None if output.prompt_logprobs is None else output.prompt_logprobs[num_known_logprobs:],
        output.num_cached_tokens,
        _pack_metrics(output.metrics),
        output.error,
    )


def _pack_metrics(metrics: RequestMetrics | None) -> tuple[Any, ...] | None:
    if metrics is None:
        return None
    return (
        metrics.arrival_time_s,
        metrics.first_scheduled_time_s,
        metrics.first_token_time_s,
        metrics.finished_time_s,
        metrics.num_preemptions,
    )


def unpack_output(
    packed: PackedOutput,
    request_id: str,
    prompt: str | None,
    prompt_token_ids: list[int],
    known_logprobs: PromptLogprobs,
) -> RequestOutput:
    """The output; the new log-probabilities of the prompt are added to ``known_logprobs``."""
    answers, finished, new_logprobs, num_cached_tokens, metrics, error = packed
    known_logprobs += new_logprobs or ()
    return RequestOutput(
        request_id=request_id,
        prompt=prompt,
        prompt_token_ids=prompt_token_ids,
        outputs=[CompletionOutput(*answer) for answer in answers],
        finished=finished,
        prompt_logprobs=None if new_logprobs is None else known_logprobs,
        num_cached_tokens=num_cached_tokens,
        metrics=None if metrics is None else RequestMetrics(*metrics),
        error=error,
    )
