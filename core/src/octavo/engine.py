"""The engine: takes requests, runs steps, hands out outputs. Knows no device; one thread only."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING

from octavo.answers import Answers
from octavo.engine_snapshot import EngineSnapshot, EngineStats, take_snapshot
from octavo.errors import BackendError, UsageError
from octavo.fault_messages import blame_message, hang_message
from octavo.intake import Intake
from octavo.isolation import describe
from octavo.member_faults import explain
from octavo.outputs import RequestOutput
from octavo.pipeline import Ended, Pipeline
from octavo.prompts import Prompt
from octavo.recovery import Recovery
from octavo.request import FinishReason
from octavo.served_request import ServedRequest
from octavo.sleep import ReloadWeights, Sleep
from octavo.step_counters import StepCounters
from octavo.watchdog import Hang, StepGuard

if TYPE_CHECKING:
    from octavo.completion import Completion, Vocabulary
    from octavo.models.base import Model
    from octavo.runner import Runner
    from octavo.sampling_params import SamplingParams
    from octavo.scheduler import Schedule, Scheduler
    from octavo.token_mask import TokenMask

__all__ = ["Engine"]


class Engine:
    """One model on one backend: the scheduler, the runner, and the requests under way."""

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        model: Model,
        vocabulary: Vocabulary,
        *,
        max_model_len: int,
        max_logprobs: int,
        step_timeout_s: float | None = None,
        reload_weights: ReloadWeights | None = None,
    ) -> None:
        """Steps that take longer than ``step_timeout_s`` are given up, and the engine with them.

        ``reload_weights`` loads them once more, after a sleep that gave them back.
        """
        self.scheduler = scheduler
        self.runner = runner
        self.model = model
        self.vocabulary = vocabulary
        self.max_model_len = max_model_len
        self.failure: str | None = None
        """Why the engine has stopped; None while it works."""
        self._intake = Intake(
            model, vocabulary, max_model_len=max_model_len, max_logprobs=max_logprobs
        )
        self._answers = Answers(scheduler, vocabulary)
        self._recovery = Recovery(scheduler)
        self._sleep = Sleep(runner, reload_weights)
        self._counters = StepCounters()
        self._guard = StepGuard(step_timeout_s)
        self._pipeline = Pipeline(scheduler, runner, self._counters.note)
        self._served: dict[str, ServedRequest] = {}
        self._undelivered: list[RequestOutput] = []
        self._num_requests = 0

    @property
    def has_unfinished_requests(self) -> bool:
        """Whether ``step`` has anything to do."""
        return bool(self._served or self._undelivered)

    @property
    def num_unfinished_requests(self) -> int:
        """Requests that run or wait."""
        return len(self._served)

    @property
    def unfinished_request_ids(self) -> list[str]:
        """Requests that run or wait."""
        return list(self._served)

    def add_request(
        self,
        request_id: str,
        prompt: Prompt,
        params: SamplingParams,
        *,
        priority: int = 0,
        cache_salt: str | None = None,
        token_mask: TokenMask | None = None,
    ) -> None:
        """Queue a request.

        Raises UsageError for what can never be served, QueueFullError when the queue is full, and
        BackendError once the engine has stopped or while it sleeps; nothing has been queued then.
        """
        if self.failure is not None:
            raise BackendError(f"request {request_id!r} was refused. {self.failure}")
        if request_id in self._served:
            raise UsageError(
                f"request_id={request_id!r} is already in use by an unfinished request; ids must "
                "be unique."
            )
        self._sleep.check_awake()
        self.scheduler.check_room(request_id)
        completion = self._intake.read(
            request_id,
            prompt,
            params,
            request_key=self._num_requests + 1,
            priority=priority,
            cache_salt=cache_salt,
            token_mask=token_mask,
        )
        self.scheduler.add(completion)
        self._num_requests += 1
        completion.served.completions.append(completion)
        self._served[request_id] = completion.served

    def abort(self, request_ids: Iterable[str]) -> list[RequestOutput]:
        """End requests at once and free their blocks; unknown and finished ids are passed over."""
        ended = [self._served.pop(request_id, None) for request_id in request_ids]
        return [self._end(served, FinishReason.ABORT) for served in ended if served is not None]

    def end_all(self, error: str) -> list[RequestOutput]:
        """End every request with ``finish_reason="error"``."""
        undelivered, self._undelivered = self._undelivered, []
        return undelivered + [
            self._end(served, FinishReason.ERROR, error) for served in list(self._served.values())
        ]

    @property
    def stats(self) -> EngineStats:
        """Totals so far, and the scheduler's figures."""
        return self._counters.stats(self.scheduler.stats, self._answers.num_tokens)

    def snapshot(self) -> EngineSnapshot:
        """Who runs and waits, and what every block holds; between two steps."""
        return take_snapshot(self.scheduler, self.stats)

    @property
    def is_sleeping(self) -> bool:
        """Memory has been given back, and no request is taken until ``wake_up``."""
        return self._sleep.level > 0

    def sleep(self, level: int = 1) -> list[RequestOutput]:
        """Give memory back: 1 the KV caches, 2 the weights too. Ends all requests; their outputs.

        Raises UsageError for another level, and BackendError once the engine has stopped.
        """
        self._sleep.check_level(level)
        if self.failure is not None:
            raise BackendError(f"The engine cannot be put to sleep. {self.failure}")
        self._pipeline.drain(self._guard)
        ended = self.end_all("The engine was put to sleep, which ended this request.")
        self.scheduler.reset_prefix_cache()
        self._sleep.fall_asleep(level)
        return ended

    def wake_up(self) -> None:
        """Take the memory again and load what was given up; the engine sleeps on if that fails.

        Raises an OctavoError that says why.
        """
        if self.is_sleeping:
            self._sleep.wake_up()

    def step(self) -> list[RequestOutput]:
        """Run one step; outputs of the requests that asked for what it produced.

        A step that raises costs nobody a token: all is computed again, and only a request whose
        step fails when it runs alone ends with ``finish_reason="error"``. An engine that cannot go
        on ends every request in this way, and ``failure`` says why.
        """
        if self._undelivered:
            outputs, self._undelivered = self._undelivered, []
            return outputs
        costs = self.runner.preemption_costs
        if costs is not None:
            self.scheduler.set_preemption_costs(costs)
        alone = self._recovery.suspect
        started_s = time.perf_counter()
        try:
            ended = self._pipeline.advance(self._guard, alone)
        except Hang as hang:
            self._pipeline.forget()
            return self._stop(hang_message(hang))
        except Exception:
            raise  # Octavo's own fault, not the backend's
        except BaseException as interrupt:
            # Ctrl-C within a step: which blocks it has moved is not known, so nothing goes on.
            self._pipeline.forget()
            self._undelivered = self._end_running(interrupt)
            raise
        finally:
            self._counters.step_time_s += time.perf_counter() - started_s
        if ended is None:
            return []
        # Out here what was raised is gone, and the old caches that its traceback held with it.
        if ended.failure is not None:
            return self._recover(ended.schedule, alone, ended.failure)
        outputs = self._advance(ended, alone)
        unlaunched = self._pipeline.settle()
        if unlaunched is not None and unlaunched.failure is not None:
            outputs += self._recover(unlaunched.schedule, None, unlaunched.failure)
        return outputs

    @property
    def step_timeout_s(self) -> float | None:
        """Longer than this no step may take; set it lower once what compiles has compiled.

        Setting it raises BackendError while a step hangs: the engine has stopped.
        """
        return self._guard.limit_s

    @step_timeout_s.setter
    def step_timeout_s(self, limit_s: float | None) -> None:
        if self.is_hung:
            raise BackendError(f"step_timeout_s={limit_s} comes too late. {self.failure}")
        self.close()
        self._guard = StepGuard(limit_s)

    @property
    def is_hung(self) -> bool:
        """A step hangs and still uses the backend."""
        return self._guard.is_hung

    def close(self) -> None:
        """Wait for what is under way; end the threads of steps and masks, if there are any."""
        try:
            self._pipeline.drain(self._guard)
        except Hang as hang:
            self._stop(hang_message(hang))
        self._guard.close()
        self.runner.close()

    def _advance(self, ended: Ended, alone: Completion | None) -> list[RequestOutput]:
        if not ended.is_committed:
            self._counters.note(ended.schedule)
            self.scheduler.commit(ended.schedule)
        touched = [] if ended.result is None else self._answers.accept(ended.result)
        self._recovery.note_success(alone)
        return [self._deliver(served) for served in touched]

    def _deliver(self, served: ServedRequest) -> RequestOutput:
        if served.finished:
            self._served.pop(served.request_id, None)
        return served.output()

    def _end(
        self, served: ServedRequest, reason: FinishReason, error: str | None = None
    ) -> RequestOutput:
        self._served.pop(served.request_id, None)
        self._answers.end(served, reason, error)
        return served.output()

    def _recover(
        self, schedule: Schedule, alone: Completion | None, failure: str
    ) -> list[RequestOutput]:
        """Start over with new caches: a failed step may have left the old ones undefined."""
        self._counters.num_failed_steps += 1
        if not self.runner.store.can_swap:
            self.scheduler.stop_swapping()
        blamed = self._recovery.note_failure(schedule, alone, failure)
        outputs = [
            self._end(served, FinishReason.ERROR, blame_message(failure, len(blamed)))
            for served in dict.fromkeys(completion.served for completion in blamed)
        ]
        return outputs + self._renew_caches()

    def _renew_caches(self) -> list[RequestOutput]:
        try:
            self._guard.call(self.runner.store.reset)
        except Hang as hang:
            return self._stop(hang_message(hang))
        except Exception as error:  # noqa: BLE001 - a backend may raise anything; it is reported
            return self._stop(
                "After a failed step the backend could not make new caches: "
                f"{explain(error, 'make_kv')}"
            )
        return []

    def _stop(self, why: str) -> list[RequestOutput]:
        """End every request: nothing can be computed here any more."""
        self.failure = f"{why} The engine has stopped."
        return self.end_all(self.failure)

    def _end_running(self, interrupt: BaseException) -> list[RequestOutput]:
        """End every request that holds blocks."""
        if self.is_hung:
            return self._stop(hang_message(interrupt))
        message = f"The step that computed this request was interrupted by {describe(interrupt)}."
        outputs = [
            self._end(served, FinishReason.ERROR, message)
            for served in list(self._served.values())
            if any(completion.row >= 0 for completion in served.unfinished_completions)
            or any(completion.num_computed_tokens for completion in served.unfinished_completions)
        ]
        self.scheduler.reset_prefix_cache()
        traceback.clear_frames(interrupt.__traceback__)  # they hold the old caches
        return outputs + self._renew_caches()
