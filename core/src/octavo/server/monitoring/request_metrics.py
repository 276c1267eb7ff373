"""Figures of the requests to one model: how long they took, how long they were, how they ended."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import Metric
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from octavo.request import FinishReason
from octavo.server.monitoring.histogram import Histogram

if TYPE_CHECKING:
    from octavo.outputs import RequestMetrics, RequestOutput

__all__ = ["RequestCollector", "RequestFigures", "RequestTimer"]

_SECONDS = [
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500),
    *(1000, 2000),
]
_STEP_SECONDS = [
    *(0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5),
    *(1, 2, 5, 10),
]
_TOKENS = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]

_HISTOGRAMS: Mapping[str, tuple[str, list[float]]] = {
    "time_to_first_token_seconds": (
        "From a request's arrival at the server to its first token.",
        _SECONDS,
    ),
    "inter_token_latency_seconds": (
        "Between two tokens of an answer; tokens that come together share the time.",
        _STEP_SECONDS,
    ),
    "e2e_request_latency_seconds": (
        "From a request's arrival at the server to its last token.",
        _SECONDS,
    ),
    "request_queue_time_seconds": ("In the engine's queue, until it first ran.", _SECONDS),
    "request_prefill_time_seconds": ("From when it first ran to its first token.", _SECONDS),
    "request_decode_time_seconds": ("From its first token to its last.", _SECONDS),
    "request_prompt_tokens": ("Tokens of a request's prompt, cached ones included.", _TOKENS),
    "request_generation_tokens": ("Tokens of all answers to a request.", _TOKENS),
}
_SUCCESS_HELP = "Requests that have ended; finished_reason is stop, length, abort or error."


class RequestFigures:
    """What is known of the requests to one model. Belongs to one event loop."""

    __slots__ = ("histograms", "inter_token", "num_ended", "time_to_first_token")

    def __init__(self) -> None:
        self.histograms = {name: Histogram(bounds) for name, (_, bounds) in _HISTOGRAMS.items()}
        self.num_ended: Counter[str] = Counter({reason.value: 0 for reason in FinishReason})
        self.time_to_first_token = self.histograms["time_to_first_token_seconds"]
        self.inter_token = self.histograms["inter_token_latency_seconds"]

    def timer(self, arrival_s: float | None = None) -> RequestTimer:
        """Follow a request that arrived at ``arrival_s`` of ``time.monotonic``, or now."""
        return RequestTimer(self, time.monotonic() if arrival_s is None else arrival_s)

    def note_served(
        self, num_prompt_tokens: int, num_output_tokens: int, duration_s: float
    ) -> None:
        """Note a request that was answered to its end."""
        self.histograms["request_prompt_tokens"].observe(num_prompt_tokens)
        self.histograms["request_generation_tokens"].observe(num_output_tokens)
        self.histograms["e2e_request_latency_seconds"].observe(duration_s)

    def note_phases(self, times: RequestMetrics) -> None:
        """Note when the engine did what for a request, as far as it says so."""
        phases = (
            ("request_queue_time_seconds", times.arrival_time_s, times.first_scheduled_time_s),
            (
                "request_prefill_time_seconds",
                times.first_scheduled_time_s,
                times.first_token_time_s,
            ),
            ("request_decode_time_seconds", times.first_token_time_s, times.finished_time_s),
        )
        for name, begin_s, end_s in phases:
            if begin_s is not None and end_s is not None:
                self.histograms[name].observe(end_s - begin_s)


class RequestTimer:
    """Follows one request of an engine: ``note_output`` with each output, ``close`` in the end.

    Outputs must be deltas. A request that is closed before its last output counts as aborted, and
    only its tokens so far are timed.
    """

    __slots__ = ("_arrival_s", "_figures", "_is_open", "_last_s", "_num_tokens")

    def __init__(self, figures: RequestFigures, arrival_s: float) -> None:
        self._figures = figures
        self._arrival_s = arrival_s
        self._last_s: dict[int, float] = {}  # of each answer's latest token
        self._num_tokens = 0
        self._is_open = True

    def note_output(self, output: RequestOutput) -> None:
        """Note what has just arrived; once for each output."""
        now_s = time.monotonic()
        last_s = self._last_s
        for answer in output.outputs:
            num_tokens = len(answer.token_ids)
            if not num_tokens:
                continue
            before_s = last_s.get(answer.index)
            if before_s is not None:
                self._figures.inter_token.observe((now_s - before_s) / num_tokens, num_tokens)
            elif not last_s:
                self._figures.time_to_first_token.observe(now_s - self._arrival_s)
            last_s[answer.index] = now_s
            self._num_tokens += num_tokens
        if output.finished and self._is_open:
            self._end(output, now_s)

    def close(self) -> None:
        """No more outputs come; any number of times."""
        if self._is_open:
            self._is_open = False
            self._figures.num_ended[FinishReason.ABORT.value] += 1

    def _end(self, output: RequestOutput, now_s: float) -> None:
        self._is_open = False
        reason = _reason(output)
        self._figures.num_ended[reason] += 1
        if reason in (FinishReason.ABORT, FinishReason.ERROR):
            return
        self._figures.note_served(
            len(output.prompt_token_ids), self._num_tokens, now_s - self._arrival_s
        )
        if output.metrics is not None:
            self._figures.note_phases(output.metrics)


def _reason(output: RequestOutput) -> str:
    """Why the request ended: of several answers, why the last one did."""
    if output.error is not None:
        return FinishReason.ERROR.value
    reasons = [answer.finish_reason for answer in output.outputs if answer.finish_reason]
    return reasons[-1] if reasons else FinishReason.STOP.value


class RequestCollector(Collector):
    """Shows Prometheus the figures of all models."""

    def __init__(self, prefix: str, figures: Mapping[str, RequestFigures]) -> None:
        """``figures`` by the models' names."""
        self._prefix = prefix
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """What has been noted so far."""
        for name, (text, _) in _HISTOGRAMS.items():
            family = HistogramMetricFamily(self._prefix + name, text, labels=["model_name"])
            for model_name, figures in self._figures.items():
                histogram = figures.histograms[name]
                family.add_metric([model_name], histogram.buckets, histogram.sum)
            yield family
        yield self._ended()

    def _ended(self) -> Metric:
        family = CounterMetricFamily(
            f"{self._prefix}request_success",
            _SUCCESS_HELP,
            labels=["model_name", "finished_reason"],
        )
        for model_name, figures in self._figures.items():
            for reason, count in sorted(figures.num_ended.items()):
                family.add_metric([model_name, reason], count)
        return family
