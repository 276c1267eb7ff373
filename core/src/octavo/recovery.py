"""After a failed step: who is tried again alone, one after the other, and who is to blame."""

from __future__ import annotations

import logging
from collections import deque
from operator import attrgetter
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from octavo.completion import Completion
    from octavo.scheduler import Schedule, Scheduler

__all__ = ["Recovery"]

_LOG = logging.getLogger(__name__)
_MAX_FAILURES_ALONE = 3  # in a row: then it is the device, not the requests
_STEPS_APART = 100  # batches that fail closer together fail for their size
_STEPS_TO_TRUST = 1000  # a limit on the size of batches is lifted after so many good steps


class Recovery:
    """Replays what a failed step may have spoilt, and finds the requests that make steps fail.

    A request is its prompt, its tokens so far and its sampling counters, so all of it can be
    computed again: after a failure nobody holds anything any more, and each request of the failed
    step is run alone until it has its next token. One that fails alone is to blame. If all pass,
    the fault was a passing one, or lay in the size of the batch: when that happens twice in short
    order, at most half as many run at once from then on, for a while.

    Every failure either ends a request or is followed by a new token for each suspect, so that
    there is an end to it whatever the backend does.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._suspects: deque[Completion] = deque()
        self._num_failures_alone = 0
        self._num_good_steps = _STEPS_APART
        self._failed_batch_size = 0  # of the failure under study, 0 if it has been explained
        self._is_limited = False

    @property
    def suspect(self) -> Completion | None:
        """The one to run alone now; None while all may run together."""
        while self._suspects and self._suspects[0].is_finished:
            self._suspects.popleft()  # aborted meanwhile
        return self._suspects[0] if self._suspects else None

    def note_failure(
        self, schedule: Schedule, alone: Completion | None, why: str
    ) -> list[Completion]:
        """The step has raised; those that are to blame. All others will be computed again."""
        self._scheduler.start_all_over()
        self._scheduler.reset_prefix_cache()
        if alone is None:
            self._study(cast("list[Completion]", schedule.requests), why)
            return []
        self._num_failures_alone += 1
        self._failed_batch_size = 0
        if self._num_failures_alone < _MAX_FAILURES_ALONE:
            return [self._suspects.popleft()]
        blamed = [completion for completion in self._suspects if not completion.is_finished]
        self._suspects.clear()
        self._num_failures_alone = 0
        return blamed

    def _study(self, completions: list[Completion], why: str) -> None:
        _LOG.warning(
            "A step of %d requests failed and is computed again, one request at a time: %s",
            len(completions),
            why,
        )
        self._suspects.extend(sorted(completions, key=attrgetter("rank")))
        self._failed_batch_size = len(completions)

    def note_success(self, alone: Completion | None) -> None:
        """A step has run, and its tokens are appended."""
        if alone is None:
            self._num_good_steps += 1
            if self._is_limited and self._num_good_steps >= _STEPS_TO_TRUST:
                self._is_limited = False
                self._scheduler.limit_running(None)
        elif alone.is_finished or not alone.is_prefilling:
            self._acquit(alone)

    def _acquit(self, alone: Completion) -> None:
        """It is not to blame; it steps back while there are others to try."""
        if self._suspects and self._suspects[0] is alone:
            self._suspects.popleft()
        self._num_failures_alone = 0
        if self.suspect is not None:
            self._scheduler.start_all_over()
        elif self._failed_batch_size:
            self._note_unexplained(self._failed_batch_size)
            self._failed_batch_size = 0

    def _note_unexplained(self, batch_size: int) -> None:
        if self._num_good_steps < _STEPS_APART and batch_size > 1:
            self._is_limited = True
            self._scheduler.limit_running(batch_size // 2)
            _LOG.warning(
                "Steps of %d requests keep failing while each passes alone: at most %d run at "
                "once for the next %d steps",
                batch_size,
                batch_size // 2,
                _STEPS_TO_TRUST,
            )
        self._num_good_steps = 0
