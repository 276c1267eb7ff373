"""A request as its sender sees it: one prompt, ``n`` answers, and what it has got of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from octavo.outputs import CompletionOutput, Logprob, RequestMetrics, RequestOutput
from octavo.sampling_params import RequestOutputKind

if TYPE_CHECKING:
    from octavo.completion import Completion, Vocabulary
    from octavo.sampling_params import SamplingParams

__all__ = ["ServedRequest"]


class ServedRequest:
    """Gathers the completions of one request and turns their progress into RequestOutputs."""

    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: list[int],
        params: SamplingParams,
        *,
        max_tokens: int,
        request_key: int,
        vocabulary: Vocabulary,
        bad_words_token_ids: list[list[int]],
    ) -> None:
        self.request_id = request_id
        self.prompt = prompt
        self.prompt_token_ids = prompt_token_ids
        self.params = params
        self.max_tokens = max_tokens
        self.request_key = request_key
        self.vocabulary = vocabulary
        self.bad_words_token_ids = bad_words_token_ids
        self.streams = params.output_kind is not RequestOutputKind.FINAL_ONLY
        self.completions: list[Completion] = []
        self.prompt_logprobs: list[dict[int, Logprob] | None] | None = (
            None if params.prompt_logprobs is None else [None]
        )
        self.metrics = RequestMetrics(arrival_time_s=time.monotonic())
        self.error: str | None = None

    @property
    def finished(self) -> bool:
        """Whether every one of the n answers has ended."""
        return len(self.completions) == self.params.n and all(
            completion.finish_reason is not None for completion in self.completions
        )

    @property
    def unfinished_completions(self) -> list[Completion]:
        """The answers that still run or wait."""
        return [c for c in self.completions if c.finish_reason is None]

    def note_first_token(self) -> None:
        """The first token is there."""
        self.metrics.first_token_time_s = time.monotonic()
        self.metrics.first_scheduled_time_s = self.completions[0].first_run_time_s

    def output(self) -> RequestOutput:
        """What to deliver now: every answer whole, or with DELTA the answers that have news."""
        delta = self.params.output_kind is RequestOutputKind.DELTA
        answers = [c for c in self.completions if c.has_news] if delta else self.completions
        finished = self.finished
        self.metrics.num_preemptions = sum(c.num_preemptions for c in self.completions)
        if finished:
            self.metrics.finished_time_s = time.monotonic()
        return RequestOutput(
            request_id=self.request_id,
            prompt=self.prompt,
            prompt_token_ids=self.prompt_token_ids,
            outputs=[_completion_output(c, delta=delta) for c in answers],
            finished=finished,
            prompt_logprobs=self.prompt_logprobs,
            num_cached_tokens=self.completions[0].num_cached_tokens if self.completions else 0,
            metrics=self.metrics,
            error=self.error,
        )


def _completion_output(completion: Completion, *, delta: bool) -> CompletionOutput:
    token_start = completion.num_delivered_tokens if delta else 0
    text_start = completion.text_delivered if delta else 0
    completion.num_delivered_tokens = len(completion.output_token_ids)
    completion.text_delivered = len(completion.text)
    completion.end_delivered = completion.finish_reason is not None
    return CompletionOutput(
        index=completion.index,
        text=completion.text[text_start:],
        token_ids=completion.output_token_ids[token_start:],
        cumulative_logprob=completion.cumulative_logprob,
        logprobs=None if completion.logprobs is None else completion.logprobs[token_start:],
        finish_reason=completion.finish_reason and completion.finish_reason.value,
        stop_reason=completion.stop_reason,
    )
