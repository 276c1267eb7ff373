"""Carries out a Schedule: builds the batch, runs the compiled step, fetches what it sampled."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from octavo.batch_rows import BatchRows
from octavo.compiled_step import CompiledStep
from octavo.device_step import DeviceStep, Filling
from octavo.errors import BackendError
from octavo.flight import Flight
from octavo.kv_store import KVStore
from octavo.late_sampling import LateSampling
from octavo.mask_worker import MaskWorker
from octavo.member_faults import naming_faults
from octavo.padding import Buckets
from octavo.preparation import Preparation
from octavo.prompt_spans import PromptLogprobs, prompt_spans, split_by_span
from octavo.sampler import SamplerRows
from octavo.samples import Samples, begin_fetch
from octavo.scheduling.config import PreemptionCosts
from octavo.token_mask import allowed_tokens
from octavo.transfers import Transfers

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.cache_plan import CachePlan
    from octavo.completion import Completion
    from octavo.models.base import Model, Weights
    from octavo.ops.protocol import Array, Ops, SamplingBatch
    from octavo.relay import Relay
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
        relay: Relay | None = None,
    ) -> None:
        """Make the caches and compile the step; raises an OctavoError that says which failed."""
        cold = naming_faults(backend, backend_name or type(backend).__name__)
        limits = plan.limits
        self._rows = BatchRows(limits.max_num_seqs, len(plan.groups), limits.block_size)
        self._sampler = SamplerRows(limits.max_num_seqs, model.vocab_size, seed)
        self._vocab_size = model.vocab_size
        self.store = KVStore(cold, plan, relay)
        self._relay = relay
        self._step = CompiledStep(cold, ops, model, self.store.layer_groups, max_logprobs)
        self._transfers = Transfers(backend)
        most_seqs = limits.max_num_seqs if self._step.is_in_parts else None
        self._buckets = Buckets.of(backend.caps, most_seqs)
        self._device_step = DeviceStep(
            backend,
            self._step,
            weights,
            self.store,
            self._transfers,
            relay,
            self._buckets.most_rows,
        )
        self.preparation = Preparation(
            self._device_step,
            self._step,
            self._transfers,
            self._buckets,
            plan,
            model.vocab_size,
            max_logprobs,
        )
        self.is_asynchronous = backend.caps.asynchronous
        """Whether a step may be launched before the one before it has been waited for."""
        self._masks = MaskWorker(model.vocab_size)
        self._seconds_per_prefill_token = 0.0  # running mean
        self._ended_s = 0.0  # when the last step was found to have ended

    def release_weights(self) -> None:
        """Let go of the weights and of the compiled step, which may hold their memory."""
        self._device_step.weights = None
        self._device_step.forget()
        self._step.release()

    def take_weights(self, weights: Weights) -> None:
        """Go on with these, which have the form of the first ones."""
        self._device_step.weights = weights
        self._step.compile()

    def close(self) -> None:
        """End the thread that masks are computed in, if there is one."""
        self._masks.close()
        if self._relay is not None:
            self._relay.end()

    def execute(self, schedule: Schedule) -> StepResult | None:
        """Run one step and wait for its tokens; None if the schedule only moves blocks."""
        flight = self.launch(schedule)
        return None if flight is None else self.wait(flight)

    def launch(self, schedule: Schedule, behind: Flight | None = None) -> Flight | None:
        """Begin a step; None if the schedule only moves blocks.

        ``behind`` is under way still: a token that it samples is filled in on the device.
        """
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
        lengths, sources = self._rows.lengths[rows], None
        if behind is not None:
            sources = self._sources(behind, rows)
            lengths = lengths + (sources > 0)
            self._rows.reserve(int(ends.max()))
        samples = ends == lengths
        if samples.all() and not special:
            answering, sampled_rows, positions, logits_rows = completions, rows, ends, last_tokens
            sample_indices = None
        else:
            wanted = self._wanted(completions, samples, special)
            sample_indices = wanted.sample_indices
            answering = [completions[i] for i in wanted.seq_index.tolist()]
            sampled_rows, positions = rows[wanted.seq_index], ends[wanted.seq_index]
            logits_rows = last_tokens[wanted.seq_index]
        needs_host = bool(special) or self._sampler.needs_tokens(sampled_rows)
        sampling: SamplingBatch | LateSampling | None = None
        try:
            sampling = self._sampling(answering, sampled_rows, positions, sample_indices)
            needs_host = needs_host or any(each.token_mask is not None for each in answering)
            buckets = self._buckets.of_step(int(last_tokens[-1]) + 1, num_seqs, sampling)
            batch = self._rows.build(rows, starts, counts, logits_rows)
            filling = None
            if behind is not None and sources is not None and sources.any():
                token_sources = np.zeros(len(batch.token_ids), np.int32)
                token_sources[last_tokens] = sources * samples
                filling = Filling(behind.token_ids, token_sources)
            sampled = self._device_step.run(batch, buckets, sampling, spans, filling)
            sampling = sampled.sampling
        finally:
            if isinstance(sampling, LateSampling):  # the step has failed
                sampling.masks.wait()
        return Flight(
            schedule=schedule,
            completions=answering,
            rows=sampled_rows,
            sampling=sampling,
            spans=spans,
            token_ids=sampled.rows[0].token_ids,
            fetch=begin_fetch(
                self._transfers,
                sampled.rows,
                sampled.prompt_tokens,
                with_logprobs=sampling.num_logprobs >= 0,
            ),
            needs_host=needs_host,
            started_s=started_s,
            num_tokens=int(last_tokens[-1]) + 1,
            num_seqs=num_seqs,
        )

    def _sources(self, behind: Flight, rows: Int32) -> Int32:
        """For each of ``rows``, 1 + where ``behind`` samples its last token; 0 if that is known."""
        sources = np.zeros(len(self._rows.lengths), np.int32)
        awaited = np.array(behind.awaited, np.int32)
        sources[behind.rows[awaited]] = awaited + 1
        return sources[rows]

    def wait(self, flight: Flight) -> StepResult:
        """What a step has sampled, for all who still want to know."""
        samples, prompt_samples = flight.fetch()
        _check_token_ids(samples.token_ids, len(flight.completions), self._vocab_size)
        sampling, completions, rows = flight.sampling, flight.completions, flight.rows
        barred = (
            frozenset() if sampling.mask is None else _barred_rows(sampling, sampling.mask, samples)
        )
        awaited = flight.awaited
        if len(awaited) < len(completions):
            completions = [completions[i] for i in awaited]
            samples, rows = samples.part(np.array(awaited, np.intp)), rows[awaited]
            barred = frozenset(new for new, old in enumerate(awaited) if old in barred)
        kept = [i for i, completion in enumerate(completions) if completion.row == rows[i]]
        if len(kept) == len(completions):
            self._record(rows, samples.token_ids)
        else:  # who has been preempted meanwhile brings all tokens along when it runs again
            self._record(rows[kept], samples.token_ids[kept])
        self._measure(flight)
        return StepResult(completions, samples, split_by_span(flight.spans, prompt_samples), barred)

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

    def _measure(self, flight: Flight) -> None:
        """Recomputing is prefill: steps of decodes, which are bound by weights, do not count."""
        began_s, self._ended_s = max(flight.started_s, self._ended_s), time.perf_counter()
        if flight.num_tokens < _PREFILL_TOKENS_PER_SEQ * flight.num_seqs:
            return
        measured = (self._ended_s - began_s) / flight.num_tokens
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
