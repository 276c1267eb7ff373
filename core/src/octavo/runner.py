"""Carries out a Schedule: builds the batch, runs the compiled step, fetches what it sampled."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from octavo.batch_rows import BatchRows
from octavo.compiled_step import CompiledStep
from octavo.errors import BackendError
from octavo.kv_store import KVStore
from octavo.late_sampling import LateSampling
from octavo.mask_worker import MaskWorker
from octavo.member_faults import naming_faults
from octavo.padding import Buckets
from octavo.prompt_spans import PromptLogprobs, PromptSpan, prompt_spans, split_by_span
from octavo.sampler import SamplerRows
from octavo.samples import Samples
from octavo.scheduling.config import PreemptionCosts
from octavo.step import map_arrays
from octavo.token_mask import allowed_tokens

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.batch import StepBatch
    from octavo.cache_plan import CachePlan
    from octavo.completion import Completion
    from octavo.models.base import Model, Weights
    from octavo.ops.protocol import Array, Ops, SamplingBatch
    from octavo.scheduler import Schedule

__all__ = ["Runner", "StepResult"]

Int32 = NDArray[np.int32]
_SMOOTHING = 0.1  # weight of the newest step in the running mean of seconds per token
_PREFILL_TOKENS_PER_SEQ = 8  # a step with this many on average is timed as prefill


@dataclass(frozen=True)
class StepResult:
    """What a step sampled: ``samples`` has one row for each of ``completions``.

    A completion stands n times in a row when it just finished a prompt with n answers to come.
    """

    completions: list[Completion]
    samples: Samples
    prompt_logprobs: list[PromptLogprobs]
    barred_rows: frozenset[int] = frozenset()
    """Unusable rows of which masks and bans together had left no token."""


@dataclass(frozen=True)
class _Wanted:
    """The sampled rows of a step. Entries that repeat a row come right after it (n > 1)."""

    seq_index: Int32  # which scheduled request
    sample_indices: Int32 | None  # which of its n answers; None if no row repeats


class Runner:
    """The persistent rows and caches of one engine on one backend."""

    def __init__(
        self,
        backend: Backend,
        ops: Ops,
        model: Model,
        weights: Weights,
        plan: CachePlan,
        *,
        seed: int,
        max_logprobs: int,
        backend_name: str = "",
    ) -> None:
        """Make the caches and compile the step; raises an OctavoError that says which failed."""
        cold = naming_faults(backend, backend_name or type(backend).__name__)
        self._backend = backend
        self._weights: Any = weights
        self._block_size = plan.limits.block_size
        self._buckets = Buckets.of(backend.caps)
        self._rows = BatchRows(plan.limits.max_num_seqs, len(plan.groups), self._block_size)
        self._sampler = SamplerRows(plan.limits.max_num_seqs, model.vocab_size, seed)
        self._vocab_size = model.vocab_size
        self.store = KVStore(cold, plan)
        self._step = CompiledStep(cold, ops, model, self.store.layer_groups, max_logprobs)
        self._masks = MaskWorker(model.vocab_size)
        self._last_placed: tuple[SamplingBatch, SamplingBatch] | tuple[None, None] = (None, None)
        self._seconds_per_prefill_token = 0.0  # running mean

    def release_weights(self) -> None:
        """Let go of the weights and of the compiled step, which may hold their memory."""
        self._weights = None
        self._last_placed = (None, None)
        self._step.release()

    def take_weights(self, weights: Weights) -> None:
        """Go on with these, which have the form of the first ones."""
        self._weights = weights
        self._step.compile()

    def close(self) -> None:
        """End the thread that masks are computed in, if there is one."""
        self._masks.close()

    def execute(self, schedule: Schedule) -> StepResult | None:
        """Run one step and wait for its tokens; None if the schedule only moves blocks."""
        started_s = time.perf_counter()
        self._admit(schedule)
        self.store.apply(schedule)
        if not schedule.requests:
            return None
        completions = cast("list[Completion]", schedule.requests)
        num_seqs = len(completions)
        rows = np.fromiter((c.row for c in completions), np.int32, num_seqs)
        starts = np.fromiter((c.num_computed_tokens for c in completions), np.int32, num_seqs)
        counts = np.array(schedule.num_tokens, np.int32)
        special = [i for i, completion in enumerate(completions) if completion.is_special]
        ends = starts + counts
        last_tokens = counts.cumsum(dtype=np.int32) - 1
        spans = prompt_spans(self._rows, completions, special, starts, counts)
        samples = ends == self._rows.lengths[rows]
        if samples.all() and not special:
            sampled, sampled_rows, positions, logits_rows = completions, rows, ends, last_tokens
            sample_indices = None
        else:
            wanted = self._wanted(completions, samples, special)
            sample_indices = wanted.sample_indices
            sampled = [completions[i] for i in wanted.seq_index.tolist()]
            sampled_rows, positions = rows[wanted.seq_index], ends[wanted.seq_index]
            logits_rows = last_tokens[wanted.seq_index]
        sampling: SamplingBatch | LateSampling | None = None
        try:
            sampling = self._sampling(sampled, sampled_rows, positions, sample_indices)
            logits_rows = self._buckets.pad_rows(logits_rows, self._buckets.num_rows(sampling))
            if spans:
                prompt_rows = np.concatenate([span.rows for span in spans])
                logits_rows = np.concatenate([logits_rows, self._buckets.pad_rows(prompt_rows)])
            batch = self._rows.build(rows, starts, counts, logits_rows)
            sampling, samples, prompt_samples = self._run(batch, sampling, spans)
        finally:
            if isinstance(sampling, LateSampling):  # the step has failed
                sampling.masks.wait()
        self._record(sampled_rows, samples.token_ids)
        self._measure(time.perf_counter() - started_s, int(last_tokens[-1]) + 1, num_seqs)
        return StepResult(
            sampled,
            samples,
            split_by_span(spans, prompt_samples),
            frozenset()
            if sampling.mask is None
            else _barred_rows(sampling, sampling.mask, samples),
        )

    def _sampling(
        self,
        sampled: list[Completion],
        rows: Int32,
        positions: Int32,
        sample_indices: Int32 | None,
    ) -> SamplingBatch | LateSampling:
        """What to sample; later where rows have masks and the forward pass does not need them."""
        build = functools.partial(
            self._sampler.build, rows, positions, sample_indices=sample_indices
        )
        masks = [completion.token_mask for completion in sampled]
        if masks.count(None) == len(masks):
            return build()
        pending = self._masks.begin(masks) if self._step.has_parts else None
        if pending is not None:
            return LateSampling(len(sampled), pending, build)
        return build(mask=allowed_tokens(masks, self._vocab_size))

    def _admit(self, schedule: Schedule) -> None:
        for completion in cast("list[Completion]", schedule.new_requests):
            row = completion.row
            self._rows.set_row(row, completion.prompt_token_ids, completion.output_token_ids)
            self._sampler.set_row(
                row,
                completion.params,
                completion.prompt_token_ids,
                completion.output_token_ids,
                request_key=completion.request_key,
                sample_index=completion.index,
                eos_token_ids=completion.eos_token_ids,
                bad_words_token_ids=completion.bad_words_token_ids,
            )
        self._rows.update_tables(schedule.table_updates)

    def _wanted(
        self, completions: Sequence[Completion], samples: NDArray[np.bool_], special: Sequence[int]
    ) -> _Wanted:
        seq_index = np.flatnonzero(samples).astype(np.int32)
        forking = [i for i in special if completions[i].num_pending_forks and samples[i]]
        if not forking:
            return _Wanted(seq_index, None)
        answers = np.ones(len(completions), np.int32)
        for i in forking:
            answers[i] += completions[i].num_pending_forks
        first = np.array([completions[i].index for i in seq_index.tolist()], np.int32)
        answers = answers[seq_index]
        starts = np.cumsum(answers, dtype=np.int32) - answers
        nth_answer = np.arange(int(answers.sum()), dtype=np.int32) - np.repeat(starts, answers)
        return _Wanted(np.repeat(seq_index, answers), np.repeat(first, answers) + nth_answer)

    def _run(
        self,
        batch: StepBatch,
        sampling: SamplingBatch | LateSampling,
        spans: Sequence[PromptSpan],
    ) -> tuple[SamplingBatch, Samples, Samples | None]:
        put, get, buckets = self._backend.put, self._backend.get, self._buckets
        targets = None
        if spans:
            targets = put(buckets.pad_rows(np.concatenate([span.targets for span in spans])))
        if not buckets.exact:
            batch = buckets.pad_batch(batch)
        plans = tuple(self._backend.plan(batch, self._block_size))
        inputs = (self._weights, self.store.caches, batch.map(put), plans)
        if isinstance(sampling, LateSampling):
            self.store.caches, logits = self._step.forward(*inputs)
            sampling = sampling.result()
            placed = self._placed(sampling)
            result, prompt_result = self._step.sample((), (), logits, placed, targets)
        else:
            placed = self._placed(sampling)
            self.store.caches, result, prompt_result = self._step.run(
                *inputs, sampling=placed, prompt_targets=targets
            )
        num_sampled = len(sampling.temperature)
        samples = Samples.fetch(result, get, slice(num_sampled))
        _check_token_ids(samples.token_ids, num_sampled, self._vocab_size)
        return sampling, samples, prompt_result and Samples.fetch(prompt_result, get, slice(None))

    def _placed(self, sampling: SamplingBatch) -> SamplingBatch:
        """``sampling`` on the device; what comes again, of SamplerRows.build, is there already."""
        put: Callable[[Any], Any] = self._backend.put
        known, placed = self._last_placed
        if known is None or placed is None or sampling.temperature is not known.temperature:
            placed = map_arrays(self._buckets.pad_sampling(sampling), put)
        elif sampling is not known:
            padded = self._buckets.pad_sampling(sampling)
            placed = dataclasses.replace(placed, uniform=put(padded.uniform))
        self._last_placed = sampling, placed
        return placed

    def _record(self, rows: Int32, token_ids: Int32) -> None:
        """Note each request's new token; of n answers to one prompt, the first keeps the row."""
        if len(rows) > 1 and (repeats := rows[1:] == rows[:-1]).any():
            own = np.concatenate([[True], ~repeats])
            rows, token_ids = rows[own], token_ids[own]
        self._rows.append(rows, token_ids)
        self._sampler.record(rows, token_ids)

    @property
    def preemption_costs(self) -> PreemptionCosts | None:
        """What recompute and swap cost here; None until a prompt has been timed."""
        if not self._seconds_per_prefill_token:
            return None
        return PreemptionCosts(
            self._seconds_per_prefill_token, self.store.seconds_per_swapped_block
        )

    def _measure(self, seconds: float, num_tokens: int, num_seqs: int) -> None:
        """Recomputing is prefill: steps of decodes, which are bound by weights, do not count."""
        if num_tokens < _PREFILL_TOKENS_PER_SEQ * num_seqs:
            return
        measured = seconds / num_tokens
        previous = self._seconds_per_prefill_token or measured
        self._seconds_per_prefill_token = previous + _SMOOTHING * (measured - previous)


def _check_token_ids(token_ids: Int32, num_sampled: int, vocab_size: int) -> None:
    """Raise BackendError for what would go wrong later, and then for everybody."""
    if token_ids.shape != (num_sampled,):
        raise BackendError(
            f"sample returned token ids of shape {token_ids.shape}; {(num_sampled,)} was expected."
        )
    known = token_ids.tolist()  # for a few numbers quicker than two reductions
    if known and not 0 <= min(known) <= max(known) < vocab_size:
        raise BackendError(
            f"sample returned token ids from {min(known)} to {max(known)}; the model "
            f"knows 0 to {vocab_size - 1}."
        )


def _barred_rows(sampling: SamplingBatch, mask: Array, samples: Samples) -> frozenset[int]:
    barred = set()
    for row in samples.unusable_rows:
        rows, values = np.asarray(sampling.bias_rows), np.asarray(sampling.bias_values)
        banned = (rows == row) & np.isneginf(values)
        allowed = np.array(mask[row])
        allowed[sampling.bias_ids[banned]] = False
        if not allowed.any():
            barred.add(row)
    return frozenset(barred)
