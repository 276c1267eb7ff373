"""What a step sampled becomes tokens of answers: appended, forked, ended, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octavo.completion import Completion, logprob_entry
from octavo.isolation import describe
from octavo.request import FinishReason

if TYPE_CHECKING:
    from octavo.completion import Vocabulary
    from octavo.prompt_spans import PromptLogprobs
    from octavo.runner import StepResult
    from octavo.samples import Samples
    from octavo.scheduler import Scheduler
    from octavo.served_request import ServedRequest

__all__ = ["Answers"]


class Answers:
    """Carries requests on by the tokens of a step, and ends them; one that fails ends alone."""

    def __init__(self, scheduler: Scheduler, vocabulary: Vocabulary) -> None:
        self._scheduler = scheduler
        self._vocabulary = vocabulary
        self.num_tokens = 0
        """Of all answers since the start."""

    def accept(self, result: StepResult) -> list[ServedRequest]:
        """Append each sampled token, end what is complete; the requests that have news."""
        samples = result.samples
        token_ids = samples.token_ids.tolist()
        unusable = samples.unusable_rows
        touched: dict[ServedRequest, None] = {}
        previous = None
        for row, (completion, token_id) in enumerate(
            zip(result.completions, token_ids, strict=True)
        ):
            served = completion.served
            if completion is previous or served.error is not None:
                continue  # a further answer to the same prompt, forked below; or one that failed
            previous = completion
            if row in unusable:
                is_barred = completion.token_mask is not None and row in result.barred_rows
                if self._end_barred(completion) if is_barred else self._refuse(completion):
                    touched[served] = None
                continue
            try:
                if completion.num_pending_forks:
                    self._fork(completion, row, samples)
                self._append(completion, token_id, row, samples)
                reason = completion.finish_reason_after(token_id)
                if reason is not None:
                    completion.complete_text(reason)
                    self._scheduler.finish(completion, reason)
            except Exception as error:  # noqa: BLE001 - a token mask or a tokenizer may raise
                self._fail(served, error)
                touched[served] = None
                continue
            # Without streaming there is news only when the last of the n answers has ended.
            if served.streams or (reason and served.finished):
                touched[served] = None
        for part in result.prompt_logprobs:
            self._accept_prompt_logprobs(part)
        return list(touched)

    def end(self, served: ServedRequest, reason: FinishReason, error: str | None = None) -> None:
        """End all answers to a request, those that have not begun included, with what they have."""
        served.error = error
        for completion in served.unfinished_completions:
            completion.complete_text(reason)
            self._finish(completion, reason)
        self._add_missing(served, reason)

    def _fail(self, served: ServedRequest, error: Exception) -> None:
        """End a request whose text or token mask raised: its text stays as it is."""
        served.error = (
            f"Octavo could not go on with this request: {describe(error)}. Other requests are not "
            "affected."
        )
        for completion in served.unfinished_completions:
            self._finish(completion, FinishReason.ERROR)
        self._add_missing(served, FinishReason.ERROR)

    def _finish(self, completion: Completion, reason: FinishReason) -> None:
        if completion.arrival < 0:  # a fork that did not get as far as the scheduler
            completion.finish_reason = reason
        else:
            self._scheduler.finish(completion, reason)

    @staticmethod
    def _add_missing(served: ServedRequest, reason: FinishReason) -> None:
        for index in range(len(served.completions), served.params.n):
            completion = Completion(served, index)
            completion.finish_reason = reason
            served.completions.append(completion)

    def _append(self, completion: Completion, token_id: int, row: int, samples: Samples) -> None:
        completion.output_token_ids.append(token_id)
        self.num_tokens += 1
        if completion.served.metrics.first_token_time_s is None:
            completion.served.note_first_token()
        if completion.logprobs is not None and samples.has_logprobs:
            completion.add_logprobs(token_id, samples.logprob_row(row))
        if completion.token_mask is not None:
            completion.token_mask.accept(token_id)

    def _refuse(self, completion: Completion) -> bool:
        """No token can be sampled for it. Whether it ends; otherwise it is computed once more.

        What it has computed is good for nobody. Where some of that may have come out of the prefix
        cache, the fault may be another's, so the request gets a chance to compute all by itself.
        """
        self._scheduler.forget_content(completion)
        may_have_hit = completion.num_cached_tokens or completion.num_preemptions
        if completion.use_prefix_cache and may_have_hit:
            completion.use_prefix_cache = False
            self._scheduler.start_over(completion)
            return False
        for sibling in completion.served.unfinished_completions:
            self._scheduler.forget_content(sibling)
        self.end(
            completion.served,
            FinishReason.ERROR,
            "The model's logits for this request hold NaN, or its token mask allows no token, so "
            "no token can be sampled. The checkpoint, the backend or the mask is at fault.",
        )
        return True

    def _end_barred(self, completion: Completion) -> bool:
        """Its mask and its options leave no token: it ends. Whether there is news."""
        served, mask = completion.served, completion.token_mask
        if mask is not None and mask.may_end and mask.failure is None:
            num_forks, completion.num_pending_forks = completion.num_pending_forks, 0
            completion.complete_text(FinishReason.STOP)
            self._scheduler.finish(completion, FinishReason.STOP)
            if num_forks:
                self._add_missing(served, FinishReason.STOP)
            return served.streams or served.finished
        failure = None if mask is None else mask.failure
        self.end(
            served,
            FinishReason.ERROR,
            f"The answer cannot go on within structured_outputs: {failure}."
            if failure is not None
            else "What structured_outputs allows next is excluded by this request's other options "
            "(allowed_token_ids, bad_words, ignore_eos or min_tokens), so that no "
            "token can be sampled. Loosen one of them.",
        )
        return True

    def _fork(self, parent: Completion, row: int, samples: Samples) -> None:
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
                self._scheduler.fork(parent, child)
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
                        self._vocabulary,
                        token_id,
                        samples.logprob_row(i),
                        completion.params.prompt_logprobs or 0,
                    )
                )
        if len(served.prompt_logprobs) == len(served.prompt_token_ids):
            completion.wants_prompt_logprobs = False
            completion.is_special = bool(completion.num_pending_forks)
