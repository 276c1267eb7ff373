"""The engine: takes requests, runs steps, hands out outputs. Knows no device; one thread only."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING

from octavo.answers import Answers
from octavo.completion import Completion
from octavo.errors import BackendError, UsageError
from octavo.isolation import describe
from octavo.member_faults import explain
from octavo.outputs import RequestOutput
from octavo.prompts import Prompt, read_prompt
from octavo.recovery import Recovery
from octavo.request import FinishReason
from octavo.served_request import ServedRequest
from octavo.structured.compiler import GrammarCompiler
from octavo.structured.params import checked_structured_outputs
from octavo.watchdog import Hang, Watchdog

if TYPE_CHECKING:
    from octavo.completion import Vocabulary
    from octavo.models.base import Model
    from octavo.runner import Runner, StepResult
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
    ) -> None:
        """Steps that take longer than ``step_timeout_s`` are given up, and the engine with them."""
        self.scheduler = scheduler
        self.runner = runner
        self.model = model
        self.vocabulary = vocabulary
        self.max_model_len = max_model_len
        self.failure: str | None = None
        """Why the engine has stopped; None while it works."""
        self._max_logprobs = max_logprobs
        self._answers = Answers(scheduler, vocabulary)
        self._recovery = Recovery(scheduler)
        self._grammars = GrammarCompiler(vocabulary)
        self._watchdog: Watchdog | None = None
        self.step_timeout_s = step_timeout_s
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
        BackendError once the engine has stopped; nothing has been queued then.
        """
        if self.failure is not None:
            raise BackendError(f"request {request_id!r} was refused. {self.failure}")
        if request_id in self._served:
            raise UsageError(
                f"request_id={request_id!r} is already in use by an unfinished request; ids must "
                "be unique."
            )
        params = params.validated_for(self.vocabulary.size, self._max_logprobs)
        text, token_ids = read_prompt(prompt, params, self.vocabulary, self.max_model_len)
        room = self.max_model_len - len(token_ids)
        served = ServedRequest(
            request_id,
            text,
            token_ids,
            params,
            max_tokens=room if params.max_tokens is None else min(params.max_tokens, room),
            request_key=self._num_requests + 1,  # 0 is the key of requests with their own seed
            vocabulary=self.vocabulary,
            bad_words_token_ids=_bad_words(params, self.vocabulary),
        )
        completion = Completion(
            served,
            0,
            priority=priority,
            cache_salt=self._cache_salt(cache_salt, len(token_ids)),
            use_prefix_cache=params.prompt_logprobs is None,
        )
        completion.token_mask = self._token_mask(params, token_mask)
        self.scheduler.add(completion)
        self._num_requests += 1
        served.completions.append(completion)
        self._served[request_id] = served

    def _token_mask(self, params: SamplingParams, given: TokenMask | None) -> TokenMask | None:
        structured = checked_structured_outputs("structured_outputs", params.structured_outputs)
        if structured is None:
            return given
        if given is not None:
            raise UsageError(
                "A request has structured_outputs and a token_mask of its own; leave one out."
            )
        return self._grammars.mask_for(structured, ignore_eos=params.ignore_eos)

    def _cache_salt(self, salt: str | None, prompt_len: int) -> tuple[str | None, int] | None:
        model_salt = self.model.prefix_salt(prompt_len)
        return None if salt is None and model_salt == 0 else (salt, model_salt)

    def abort(self, request_ids: Iterable[str]) -> list[RequestOutput]:
        """End requests at once and free their blocks; unknown and finished ids are passed over."""
        ended = [self._served.pop(request_id, None) for request_id in request_ids]
        return [self._end(served, FinishReason.ABORT) for served in ended if served is not None]

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
        schedule = self.scheduler.schedule(alone)
        if schedule.is_empty:
            return []
        try:
            if self._watchdog is None:
                result = self.runner.execute(schedule)
            else:
                result = self._watchdog.call(lambda: self.runner.execute(schedule))
        except Hang as hang:
            return self._stop(_hang_message(hang))
        except Exception as error:  # noqa: BLE001 - a backend may raise anything; it is reported
            failure = explain(error)
        except BaseException as interrupt:
            # Ctrl-C within a step: which blocks it has moved is not known, so nothing goes on.
            self._undelivered = self._end_running(interrupt)
            raise
        else:
            return self._advance(schedule, result, alone)
        # Out here the exception is gone, and the old caches that its traceback held with it.
        return self._recover(schedule, alone, failure)

    @property
    def step_timeout_s(self) -> float | None:
        """Longer than this no step may take; set it lower once what compiles has compiled.

        Setting it raises BackendError while a step hangs: the engine has stopped.
        """
        return None if self._watchdog is None else self._watchdog.limit_s

    @step_timeout_s.setter
    def step_timeout_s(self, limit_s: float | None) -> None:
        if self.is_hung:
            raise BackendError(f"step_timeout_s={limit_s} comes too late. {self.failure}")
        self.close()
        self._watchdog = None if limit_s is None else Watchdog(limit_s)

    @property
    def is_hung(self) -> bool:
        """A step hangs and still uses the backend."""
        return self._watchdog is not None and self._watchdog.is_hung

    def close(self) -> None:
        """End the thread that steps run in, if there is one."""
        if self._watchdog is not None:
            self._watchdog.close()

    def _advance(
        self, schedule: Schedule, result: StepResult | None, alone: Completion | None
    ) -> list[RequestOutput]:
        self.scheduler.commit(schedule)
        touched = [] if result is None else self._answers.accept(result)
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
        if not self.runner.store.can_swap:
            self.scheduler.stop_swapping()
        blamed = self._recovery.note_failure(schedule, alone, failure)
        outputs = [
            self._end(served, FinishReason.ERROR, _blame_message(failure, len(blamed)))
            for served in dict.fromkeys(completion.served for completion in blamed)
        ]
        return outputs + self._renew_caches()

    def _renew_caches(self) -> list[RequestOutput]:
        try:
            if self._watchdog is None:
                self.runner.store.reset()
            else:
                self._watchdog.call(self.runner.store.reset)
        except Hang as hang:
            return self._stop(_hang_message(hang))
        except Exception as error:  # noqa: BLE001 - a backend may raise anything; it is reported
            return self._stop(
                "After a failed step the backend could not make new caches: "
                f"{explain(error, 'make_kv')}"
            )
        return []

    def _stop(self, why: str) -> list[RequestOutput]:
        """End every request: nothing can be computed here any more."""
        self.failure = f"{why} The engine has stopped."
        return [
            self._end(served, FinishReason.ERROR, self.failure)
            for served in list(self._served.values())
        ]

    def _end_running(self, interrupt: BaseException) -> list[RequestOutput]:
        """End every request that holds blocks."""
        if self.is_hung:
            return self._stop(_hang_message(interrupt))
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


def _blame_message(failure: str, num_blamed: int) -> str:
    if num_blamed == 1:
        return (
            "The backend failed in a step of this request, which it ran alone a second time: "
            f"{failure} Other requests are not affected."
        )
    return (
        "The backend failed in the steps of several requests in a row, each run alone, so that the "
        f"device itself seems to be at fault: {failure}"
    )


def _hang_message(error: BaseException) -> str:
    return (
        f"A step hangs ({error}; the limit is step_timeout_s) and was left behind, with the device "
        "in an unknown state. Start the process anew; if the step was only slow, as a first step "
        "that compiles may be, raise step_timeout_s."
    )


def _bad_words(params: SamplingParams, vocabulary: Vocabulary) -> list[list[int]]:
    if vocabulary.tokenizer is None:
        if params.bad_words or params.stop:
            name = "bad_words" if params.bad_words else "stop"
            raise UsageError(
                f"{name} needs a tokenizer, and this engine has none; use logit_bias or "
                "stop_token_ids."
            )
        return []
    encode = vocabulary.tokenizer.encode
    spellings = [
        encode(prefix + word, add_special_tokens=False)
        for word in params.bad_words or ()
        for prefix in ("", " ")
    ]
    return [ids for i, ids in enumerate(spellings) if ids and ids not in spellings[:i]]
