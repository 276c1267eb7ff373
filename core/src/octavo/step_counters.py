"""Totals of an engine's steps, for metrics: steps, tokens and the time they took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.engine_snapshot import EngineStats

if TYPE_CHECKING:
    from octavo.scheduling.schedule import Schedule
    from octavo.scheduling.stats import SchedulerStats

__all__ = ["StepCounters"]


@dataclass(slots=True)
class StepCounters:
    """Counted since the engine was made."""

    num_steps: int = 0
    num_failed_steps: int = 0
    num_prompt_tokens: int = 0
    step_time_s: float = 0.0

    def note(self, schedule: Schedule) -> None:
        """A step has run, and the scheduler has not noted it yet (``commit``)."""
        self.num_steps += 1
        first_prefill = schedule.num_decodes
        for request, num_tokens in zip(
            schedule.requests[first_prefill:], schedule.num_tokens[first_prefill:], strict=True
        ):
            # What is computed again after a preemption may be an answer's own tokens.
            num_left = request.num_prompt_tokens - request.num_computed_tokens
            self.num_prompt_tokens += max(0, min(num_tokens, num_left))

    def stats(self, scheduler: SchedulerStats, num_generated_tokens: int) -> EngineStats:
        """The totals, with what others have counted."""
        return EngineStats(
            scheduler=scheduler,
            num_steps=self.num_steps,
            num_prompt_tokens=self.num_prompt_tokens,
            num_generated_tokens=num_generated_tokens,
            num_failed_steps=self.num_failed_steps,
            step_time_s=self.step_time_s,
        )
