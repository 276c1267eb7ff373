"""The engine: takes requests, runs steps, hands out outputs. Knows no device; one thread only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from octavo.completion import Completion, logprob_entry
from octavo.errors import BackendError, UsageError
from octavo.outputs import RequestOutput
from octavo.prompts import Prompt, read_prompt
from octavo.request import FinishReason
from octavo.served_request import ServedRequest

if TYPE_CHECKING:
    from octavo.completion import Vocabulary
    from octavo.models.base import Model
    from octavo.runner import PromptLogprobs, Runner, StepResult
    from octavo.samples import Samples
    from octavo.sampling_params import SamplingParams
    from octavo.scheduler import Scheduler
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
    ) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self.model = model
        self.vocabulary = vocabulary
        self.max_model_len = max_model_len
        self._max_logprobs = max_logprobs
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

        Raises UsageError for what can never be served and QueueFullError when the queue is full;
        in both cases nothing has been queued.
        """
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
        completion.token_mask = token_mask
        self.scheduler.add(completion)
        self._num_requests += 1
        served.completions.append(completion)
        self._served[request_id] = served

    def _cache_salt(self, salt: str | None, prompt_len: int) -> tuple[str | None, int] | None:
        model_salt = self.model.prefix_salt(prompt_len)
        return None if salt is None and model_salt == 0 else (salt, model_salt)

    def abort(self, request_ids: Iterable[str]) -> list[RequestOutput]:
        """End requests at once and free their blocks; unknown and finished ids are passed over."""
        outputs = []
        for request_id in request_ids:
            served = self._served.pop(request_id, None)
            if served is not None:
                self._end_all(served, FinishReason.ABORT)
                outputs.append(served.output())
        return outputs

    def step(self) -> list[RequestOutput]:
        """Run one step; outputs of the requests that asked for what it produced.

        A step that fails ends the requests that were running with ``finish_reason="error"`` and
        the reason in ``RequestOutput.error``; those that wait go on.
        """
        if self._undelivered:
            outputs, self._undelivered = self._undelivered, []
            return outputs
        costs = self.runner.preemption_costs
        if costs is not None:
            self.scheduler.set_preemption_costs(costs)
        schedule = self.scheduler.schedule()
        if schedule.is_empty:
            return []
        try:
            result = self.runner.execute(schedule)
        except Exception as error:  # noqa: BLE001 - a backend may raise anything; it is reported
            return self._fail_running(error)
        except BaseException as interrupt:
            # Ctrl-C within a step: which blocks it has moved is not known, so nothing goes on.
            self._undelivered = self._fail_running(interrupt)
            raise
        self.scheduler.commit(schedule)
        if result is None:
            return []
        touched = self._accept(result)
        for part in result.prompt_logprobs:
            self._accept_prompt_logprobs(part)
        return [self._deliver(served) for served in touched]

    def _accept(self, result: StepResult) -> list[ServedRequest]:
        """Append each sampled token, end what is complete; the requests that have news."""
        samples = result.samples
        token_ids = samples.token_ids.tolist()
        unusable = samples.unusable_rows
        touched: dict[ServedRequest, None] = {}
        previous = None
        for row, (completion, token_id) in enumerate(
            zip(result.completions, token_ids, strict=True)
        ):
            if completion is previous:
                continue  # a further answer to the same prompt, forked below
            previous = completion
            if unusable and (row in unusable or completion.served.error is not None):
                touched[self._fail(completion.served)] = None
                continue
            if completion.num_pending_forks:
                self._fork(completion, row, samples)
            self._append(completion, token_id, row, samples)
            reason = completion.finish_reason_after(token_id)
            if reason is not None:
                completion.complete_text(reason)
                self.scheduler.finish(completion, reason)
            # Without streaming there is news only when the last of the n answers has ended.
            if completion.served.streams or (reason and completion.served.finished):
                touched[completion.served] = None
        return list(touched)

    def _append(self, completion: Completion, token_id: int, row: int, samples: Samples) -> None:
        completion.output_token_ids.append(token_id)
        if completion.served.metrics.first_token_time_s is None:
            completion.served.note_first_token()
        if completion.logprobs is not None and samples.has_logprobs:
            completion.add_logprobs(token_id, samples.logprob_row(row))
        if completion.token_mask is not None:
            completion.token_mask.accept(token_id)

    def _fail(self, served: ServedRequest) -> ServedRequest:
        """End one request whose logits cannot be sampled; the others are not affected."""
        served.error = (
            "The model's logits for this request hold NaN, or its token mask allows no token, so "
            "no token can be sampled. The checkpoint, the backend or the mask is at fault."
        )
        self._end_all(served, FinishReason.ERROR)
        return served

    def _fork(
        self,
        parent: Completion,
        row: int,
        samples: Samples,
    ) -> None:
        """The prompt is computed: let the other answers share its blocks and go their own ways."""
        num_forks, parent.num_pending_forks = parent.num_pending_forks, 0
        parent.is_special = parent.wants_prompt_logprobs
        for nth in range(1, num_forks + 1):
            child = Completion(
                parent.served,
                nth,
                priority=parent.priority,
                cache_salt=parent.cache_salt,
                use_prefix_cache=parent.use_prefix_cache,
            )
            child.token_mask = parent.token_mask and parent.token_mask.fork()
            parent.served.completions.append(child)
            token_id = int(samples.token_ids[row + nth])
            self._append(child, token_id, row + nth, samples)
            reason = child.finish_reason_after(token_id)
            if reason is None:
                self.scheduler.fork(parent, child)
            else:
                child.complete_text(reason)
                child.finish_reason = reason

    def _accept_prompt_logprobs(self, part: PromptLogprobs) -> None:
        completion, samples = part.completion, part.samples
        served = completion.served
        if served.prompt_logprobs is None:
            return
        # A preempted prompt is computed again: keep each position once.
        known = len(served.prompt_logprobs)
        for i, token_id in enumerate(samples.token_ids.tolist()):
            if part.first_position + i >= known:
                served.prompt_logprobs.append(
                    logprob_entry(
                        self.vocabulary,
                        token_id,
                        samples.logprob_row(i),
                        completion.params.prompt_logprobs or 0,
                    )
                )
        if len(served.prompt_logprobs) == len(served.prompt_token_ids):
            completion.wants_prompt_logprobs = False
            completion.is_special = bool(completion.num_pending_forks)

    def _deliver(self, served: ServedRequest) -> RequestOutput:
        if served.finished:
            self._served.pop(served.request_id, None)
        return served.output()

    def _end_all(self, served: ServedRequest, reason: FinishReason) -> None:
        for completion in served.unfinished_completions:
            completion.complete_text(reason)
            self.scheduler.finish(completion, reason)
        for index in range(len(served.completions), served.params.n):
            completion = Completion(served, index)
            completion.finish_reason = reason
            served.completions.append(completion)

    def _fail_running(self, error: BaseException) -> list[RequestOutput]:
        """End every request that holds blocks: a failed step may have left the caches undefined."""
        message = (
            f"The backend failed in a step: {type(error).__name__}: {error}. The requests that "
            "were running have ended; requests that wait are not affected."
        )
        failed = [
            served
            for served in self._served.values()
            if any(completion.num_computed_tokens for completion in served.unfinished_completions)
            or any(completion.row >= 0 for completion in served.unfinished_completions)
        ]
        for served in failed:
            served.error = message
            self._served.pop(served.request_id)
            self._end_all(served, FinishReason.ERROR)
        self.scheduler.reset_prefix_cache()
        self.runner.store.reset()
        if not failed and isinstance(error, Exception):
            raise BackendError(message) from error
        return [served.output() for served in failed]


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
