"""Counters of the scheduler, and the snapshot that others read."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counters", "GroupStats", "SchedulerStats"]


@dataclass(slots=True)
class Counters:
    """Totals since the start."""

    num_recompute_preemptions: int = 0
    num_swap_preemptions: int = 0
    num_prefix_query_tokens: int = 0
    num_prefix_hit_tokens: int = 0


@dataclass(frozen=True)
class GroupStats:
    """Blocks of one KV group by state; device states add up to all blocks but block 0."""

    num_used: int
    """Held by running requests."""
    num_cached: int
    """Free, and still holding a known prefix."""
    num_unused: int
    """Free and empty."""
    num_host_used: int
    num_host_free: int


@dataclass(frozen=True)
class SchedulerStats:
    """A snapshot. Prefix figures count each request once, when it first runs."""

    num_waiting: int
    num_running: int
    num_swapped: int
    num_recompute_preemptions: int
    num_swap_preemptions: int
    num_prefix_query_tokens: int
    num_prefix_hit_tokens: int
    groups: tuple[GroupStats, ...]
