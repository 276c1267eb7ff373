"""What a request returns, in vLLM's names."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["CompletionOutput", "Logprob", "RequestMetrics", "RequestOutput"]


@dataclass(frozen=True, slots=True)
class Logprob:
    """Log-probability of one token, of the model's raw logits."""

    logprob: float
    rank: int | None = None  # 1 = the most likely
    decoded_token: str | None = None


Logprobs = list[dict[int, Logprob]]
"""One entry per token: token id → Logprob, the chosen token first, then the most likely."""


@dataclass(slots=True)
class CompletionOutput:
    """One of a request's ``n`` answers; deltas if the request asked for deltas."""

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None  # "stop", "length", "abort", "error"; None while running
    stop_reason: int | str | None = None  # the stop string or token that ended it

    @property
    def finished(self) -> bool:
        """Whether this answer is complete."""
        return self.finish_reason is not None


@dataclass(slots=True)
class RequestMetrics:
    """Times of one request, in seconds of ``time.monotonic``."""

    arrival_time_s: float
    first_scheduled_time_s: float | None = None
    """When it left the queue."""
    first_token_time_s: float | None = None
    finished_time_s: float | None = None
    num_preemptions: int = 0


@dataclass(slots=True)
class RequestOutput:
    """A request's answers so far."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    num_cached_tokens: int = 0
    metrics: RequestMetrics | None = None
    error: str | None = field(default=None)  # why finish_reason is "error"
