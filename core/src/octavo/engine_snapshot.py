"""What an engine shows of itself: counters after every step, and its blocks when asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from octavo.block_map import BlockRun, map_blocks
from octavo.scheduling.stats import SchedulerStats

if TYPE_CHECKING:
    from octavo.completion import Completion
    from octavo.scheduler import Scheduler

__all__ = [
    "BlockRun",
    "EngineSnapshot",
    "EngineStats",
    "GroupView",
    "RequestView",
    "take_snapshot",
]


@dataclass(frozen=True)
class EngineStats:
    """Totals since the start, and the scheduler's own figures."""

    scheduler: SchedulerStats
    num_steps: int = 0
    num_prompt_tokens: int = 0
    """Prompt tokens that were computed, some of them again after a preemption; what the prefix
    cache gave is not among them."""
    num_generated_tokens: int = 0
    num_failed_steps: int = 0
    step_time_s: float = 0.0
    """Spent in steps."""


@dataclass(frozen=True)
class RequestView:
    """One answer under way."""

    request_id: str
    status: str  # "waiting", "running", "swapped"
    num_prompt_tokens: int
    num_output_tokens: int
    num_computed_tokens: int
    num_cached_tokens: int
    num_preemptions: int
    priority: int
    age_s: float


@dataclass(frozen=True)
class GroupView:
    """The blocks of a KV group in order, block 0 left out."""

    num_blocks: int
    runs: Sequence[BlockRun]
    """From the engine a BlockRuns, which also has them as columns."""


@dataclass(frozen=True)
class EngineSnapshot:
    """An engine at one moment, between two steps."""

    block_size: int
    requests: tuple[RequestView, ...]
    groups: tuple[GroupView, ...]
    stats: EngineStats


def take_snapshot(scheduler: Scheduler, stats: EngineStats) -> EngineSnapshot:
    """What the requests and blocks of a scheduler are now, between two steps.

    Takes a few milliseconds with 100,000 blocks, whoever holds them.
    """
    requests = scheduler.unfinished
    now_s = time.monotonic()
    return EngineSnapshot(
        block_size=scheduler.config.block_size,
        requests=tuple(_view(cast("Completion", request), now_s) for request in requests),
        groups=tuple(
            GroupView(
                pool.num_usable,
                map_blocks(pool, [request.blocks[group] for request in requests]),
            )
            for group, pool in enumerate(scheduler.pools)
        ),
        stats=stats,
    )


def _view(completion: Completion, now_s: float) -> RequestView:
    return RequestView(
        request_id=completion.request_id,
        status=completion.status.value,
        num_prompt_tokens=completion.num_prompt_tokens,
        num_output_tokens=completion.num_output_tokens,
        num_computed_tokens=completion.num_computed_tokens,
        num_cached_tokens=completion.num_cached_tokens,
        num_preemptions=completion.num_preemptions,
        priority=completion.priority,
        age_s=now_s - completion.served.metrics.arrival_time_s,
    )
