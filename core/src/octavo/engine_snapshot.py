"""What an engine shows of itself: counters after every step, and its blocks when asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from octavo.scheduling.stats import SchedulerStats

__all__ = ["BlockRun", "EngineSnapshot", "EngineStats", "GroupView", "RequestView"]

BlockState = Literal["unused", "cached", "used"]


@dataclass(frozen=True)
class EngineStats:
    """Totals since the start, and the scheduler's own figures."""

    scheduler: SchedulerStats
    num_steps: int = 0
    num_prompt_tokens: int = 0
    """Prompt tokens that were computed; what the prefix cache gave is not among them."""
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
class BlockRun:
    """Neighbouring blocks of the same state, owner and number of holders."""

    state: BlockState
    owner: int
    """Index in ``EngineSnapshot.requests`` of the first that holds them; -1: nobody."""
    num_holders: int
    """More than one: a shared prefix."""
    num_blocks: int


@dataclass(frozen=True)
class GroupView:
    """The blocks of a KV group in order, block 0 left out."""

    num_blocks: int
    runs: tuple[BlockRun, ...]


@dataclass(frozen=True)
class EngineSnapshot:
    """An engine at one moment, between two steps."""

    block_size: int
    requests: tuple[RequestView, ...]
    groups: tuple[GroupView, ...]
    stats: EngineStats
