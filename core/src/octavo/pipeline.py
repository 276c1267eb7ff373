"""Steps one after the other or, on an asynchronous device, one launched behind the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.member_faults import explain
from octavo.watchdog import Hang

if TYPE_CHECKING:
    from octavo.completion import Completion
    from octavo.flight import Flight
    from octavo.runner import Runner, StepResult
    from octavo.scheduler import Schedule, Scheduler
    from octavo.watchdog import StepGuard

__all__ = ["Ended", "Pipeline"]


@dataclass(frozen=True)
class Ended:
    """A step that has run, or failed."""

    schedule: Schedule
    is_committed: bool
    """The scheduler counts its tokens as computed already."""
    result: StepResult | None = None
    failure: str | None = None


class Pipeline:
    """Plans, launches and waits for steps; at most one is under way behind the one waited for.

    While a step runs that samples a request's next token, the next step is planned as if the token
    were known: it counts, in length, and its id is filled in on the device. This waits where the id
    matters to the host: masks of grammars, penalties, forks. Who turns out to have ended took part
    in one step too many, whose results are dropped; what that step wrote lies behind the tokens
    that anybody may find in the cache.
    """

    def __init__(
        self, scheduler: Scheduler, runner: Runner, note_step: Callable[[Schedule], None]
    ) -> None:
        """``note_step`` is called with each step that has run, before the scheduler notes it."""
        self._scheduler = scheduler
        self._runner = runner
        self._note_step = note_step
        self._behind: Flight | None = None
        self._unlaunched: Ended | None = None

    def advance(self, guard: StepGuard, alone: Completion | None) -> Ended | None:
        """Run a step to its end; None if there is nothing to do.

        What a backend raises becomes ``Ended.failure``. Raises Hang, and what interrupts a step;
        ``forget`` what is under way then.
        """
        flight, self._behind = self._behind, None
        if flight is None:
            schedule = self._scheduler.schedule(alone)
            if schedule.is_empty:
                return None
            try:
                flight = guard.call(lambda: self._runner.launch(schedule))
            except Hang:
                raise
            except Exception as error:  # noqa: BLE001 - a backend may raise anything; it is told
                return Ended(schedule, is_committed=False, failure=explain(error))
            if flight is None:
                return Ended(schedule, is_committed=False)
        return self._finish(flight, guard, may_go_ahead=alone is None)

    def _finish(self, flight: Flight, guard: StepGuard, *, may_go_ahead: bool) -> Ended:
        if may_go_ahead and self._runner.is_asynchronous and not flight.needs_host:
            self._go_ahead(flight, guard)
        try:
            result = guard.call(lambda: self._runner.wait(flight))
        except Hang:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            self.forget()
            return Ended(flight.schedule, flight.is_committed, failure=explain(error))
        return Ended(flight.schedule, flight.is_committed, result)

    def _go_ahead(self, flight: Flight, guard: StepGuard) -> None:
        """Launch the next step behind ``flight``. All tokens that go into ``flight`` are known."""
        self._note_step(flight.schedule)
        self._scheduler.commit(flight.schedule)
        flight.is_committed = True
        awaited = [flight.completions[index] for index in flight.awaited]
        for completion in awaited:
            completion.num_sampling = 1
        try:
            schedule = self._scheduler.schedule()
        finally:
            for completion in awaited:
                completion.num_sampling = 0
        if schedule.is_empty:
            return
        try:
            self._behind = guard.call(lambda: self._runner.launch(schedule, behind=flight))
        except Hang:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            self._unlaunched = Ended(schedule, is_committed=False, failure=explain(error))

    def settle(self) -> Ended | None:
        """The tokens of the step that ended are appended. What failed to be launched behind it."""
        if self._behind is not None:
            self._behind.drop_ended()
        unlaunched, self._unlaunched = self._unlaunched, None
        return unlaunched

    def forget(self) -> None:
        """Nobody waits any more for what is under way."""
        self._behind = self._unlaunched = None

    def drain(self, guard: StepGuard) -> None:
        """Wait for what is under way, and forget it; a request of it must not run on."""
        flight = self._behind
        self.forget()
        if flight is None or guard.is_hung:
            return
        try:
            guard.call(lambda: self._runner.wait(flight))
        except Hang:
            raise
        except Exception:  # noqa: BLE001 - nobody asks for it any more
            return
