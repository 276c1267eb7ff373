"""Figures that engines keep anyway, read when somebody asks: a step costs nothing more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import Metric
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from octavo import __version__

if TYPE_CHECKING:
    from octavo.scheduling.stats import GroupStats
    from octavo.server.engines.client import EngineClient
    from octavo.server.served_model import ServedModel

__all__ = ["EngineCollector", "cache_usage"]

Reading = tuple[tuple[str, ...], float]
"""Values of the labels after model_name, and the value."""


@dataclass(frozen=True)
class _Figure:
    """One metric of every engine."""

    kind: type[CounterMetricFamily | GaugeMetricFamily]
    name: str
    text: str
    read: Callable[[EngineClient], float | Iterable[Reading]]
    labels: tuple[str, ...] = ()


def cache_usage(groups: Sequence[GroupStats]) -> float:
    """Used blocks over all, 0 to 1, of the KV group that is fullest."""
    return max((group.num_used / max(1, _num_blocks(group)) for group in groups), default=0.0)


def _num_blocks(group: GroupStats) -> int:
    return group.num_used + group.num_cached + group.num_unused


def _blocks(engine: EngineClient) -> Iterator[Reading]:
    for index, group in enumerate(engine.stats.scheduler.groups):
        yield (str(index), "used"), group.num_used
        yield (str(index), "cached"), group.num_cached
        yield (str(index), "unused"), group.num_unused


def _preemptions(engine: EngineClient) -> Iterator[Reading]:
    stats = engine.stats.scheduler
    yield ("recompute",), stats.num_recompute_preemptions
    yield ("swap",), stats.num_swap_preemptions


def _info(engine: EngineClient) -> Iterator[Reading]:
    info = engine.info
    yield (
        (
            info.architecture,
            info.device,
            info.backend,
            info.dtype,
            info.quantization,
            info.kv_cache_dtype,
            str(info.max_model_len),
            str(info.block_size),
            __version__,
        ),
        1.0,
    )


_FIGURES = (
    _Figure(
        GaugeMetricFamily,
        "num_requests_running",
        "Answers that are being computed.",
        lambda engine: engine.stats.scheduler.num_running,
    ),
    _Figure(
        GaugeMetricFamily,
        "num_requests_waiting",
        "Answers in the engine's queue.",
        lambda engine: engine.stats.scheduler.num_waiting,
    ),
    _Figure(
        GaugeMetricFamily,
        "num_requests_swapped",
        "Answers whose KV cache has been moved to the host.",
        lambda engine: engine.stats.scheduler.num_swapped,
    ),
    _Figure(
        GaugeMetricFamily,
        "kv_cache_usage_perc",
        "Used blocks over all, 0 to 1, of the KV group that is fullest.",
        lambda engine: cache_usage(engine.stats.scheduler.groups),
    ),
    _Figure(
        GaugeMetricFamily,
        "kv_cache_blocks",
        "Blocks of a KV group; cached ones are free and still hold a known prefix.",
        _blocks,
        ("group", "state"),
    ),
    _Figure(
        CounterMetricFamily,
        "prefix_cache_queries",
        "Prompt tokens that were looked for in the prefix cache.",
        lambda engine: engine.stats.scheduler.num_prefix_query_tokens,
    ),
    _Figure(
        CounterMetricFamily,
        "prefix_cache_hits",
        "Prompt tokens that the prefix cache gave.",
        lambda engine: engine.stats.scheduler.num_prefix_hit_tokens,
    ),
    _Figure(
        CounterMetricFamily,
        "num_preemptions",
        "Answers that made room for others; kind is recompute or swap.",
        _preemptions,
        ("kind",),
    ),
    _Figure(
        CounterMetricFamily,
        "prompt_tokens",
        "Prompt tokens that were computed; what the prefix cache gave is not among them.",
        lambda engine: engine.stats.num_prompt_tokens,
    ),
    _Figure(
        CounterMetricFamily,
        "generation_tokens",
        "Tokens that were generated.",
        lambda engine: engine.stats.num_generated_tokens,
    ),
    _Figure(
        CounterMetricFamily,
        "engine_steps",
        "Steps of the engine: one forward pass over all that runs.",
        lambda engine: engine.stats.num_steps,
    ),
    _Figure(
        CounterMetricFamily,
        "engine_failed_steps",
        "Steps in which the backend failed; what they computed is computed again.",
        lambda engine: engine.stats.num_failed_steps,
    ),
    _Figure(
        CounterMetricFamily,
        "engine_step_seconds",
        "Time spent in steps.",
        lambda engine: engine.stats.step_time_s,
    ),
    _Figure(
        GaugeMetricFamily,
        "engine_up",
        "1 while the engine works, 0 once it has failed.",
        lambda engine: engine.failure is None,
    ),
    _Figure(
        GaugeMetricFamily,
        "engine_sleeping",
        "1 while the engine sleeps.",
        lambda engine: engine.is_sleeping,
    ),
    _Figure(
        GaugeMetricFamily,
        "engine_info",
        "1; what does not change while the engine runs is in the labels.",
        _info,
        (
            "architecture",
            "device",
            "backend",
            "dtype",
            "quantization",
            "kv_cache_dtype",
            "max_model_len",
            "block_size",
            "version",
        ),
    ),
)


class EngineCollector(Collector):
    """Shows Prometheus the figures of all engines."""

    def __init__(self, prefix: str, models: Sequence[ServedModel]) -> None:
        self._prefix = prefix
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """What every engine says now."""
        for figure in _FIGURES:
            family = figure.kind(
                self._prefix + figure.name, figure.text, labels=["model_name", *figure.labels]
            )
            for model in self._models:
                for labels, value in _readings(figure, model.engine):
                    family.add_metric([model.name, *labels], float(value))
            yield family


def _readings(figure: _Figure, engine: EngineClient) -> Iterable[Reading]:
    read = figure.read(engine)
    return read if isinstance(read, Iterable) else [((), read)]
