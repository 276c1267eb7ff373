"""Carries out a Schedule: builds the batch, runs the compiled step, fetches what it sampled."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from octavo.batch_rows import BatchRows
from octavo.compiled_step import CompiledStep
from octavo.errors import BackendError
from octavo.flight import Flight
from octavo.kv_store import KVStore
from octavo.late_sampling import LateSampling
from octavo.mask_worker import MaskWorker
from octavo.member_faults import naming_faults
from octavo.padding import Buckets
from octavo.prompt_spans import PromptLogprobs, PromptSpan, prompt_spans, split_by_span
from octavo.rehearsal import (
    Fills,
    StepShape,
    padding_batch,
    padding_sampling,
    programs_of,
    shapes_of,
)
from octavo.sampler import SamplerRows
from octavo.samples import Samples, begin_fetch
from octavo.scheduling.config import PreemptionCosts
from octavo.token_mask import allowed_tokens
from octavo.transfers import Transfers

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.batch import StepBatch
    from octavo.cache_plan import CachePlan
    from octavo.completion import Completion
    from octavo.models.base import Model, Weights
    from octavo.ops.protocol import Array, Ops, SampleResult, SamplingBatch
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


@dataclass(frozen=True)
class _Placed:
    """The settings of a step's rows, on the host and, padded to so many, on the device."""

    host: SamplingBatch
    device: SamplingBatch
    num_rows: int


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
        self._backend = backend
        self._weights: Any = weights
        self._block_size = plan.limits.block_size
        self._buckets = Buckets.of(backend.caps)
        self._rows = BatchRows(plan.limits.max_num_seqs, len(plan.groups), self._block_size)
        self._sampler = SamplerRows(plan.limits.max_num_seqs, model.vocab_size, seed)
        self._vocab_size = model.vocab_size
        self.store = KVStore(cold, plan, relay)
        self._relay = relay
        self._step = CompiledStep(cold, ops, model, self.store.layer_groups, max_logprobs)
        self._transfers = Transfers(backend)
        self._fills = Fills(self._transfers)
        self.is_asynchronous = backend.caps.asynchronous
        """Whether a step may be launched before the one before it has been waited for."""
        self._masks = MaskWorker(model.vocab_size)
        self._last_placed: _Placed | None = None
        self._seconds_per_prefill_token = 0.0  # running mean
        self._ended_s = 0.0  # when the last step was found to have ended

    def release_weights(self) -> None:
        """Let go of the weights and of the compiled step, which may hold their memory."""
        self._weights = None
        self._last_placed = None
        self._step.release()

    def take_weights(self, weights: Weights) -> None:
        """Go on with these, which have the form of the first ones."""
        self._weights = weights
        self._step.compile()

    def close(self) -> None:
        """End the thread that masks are computed in, if there is one."""
        self._masks.close()
        if self._relay is not None:
            self._relay.end()

    def rehearse(self, shape: StepShape) -> None:
        """Run a step of padding, and wait for it."""
        batch, buckets, sampling = self._padding(shape)
        _, result, prompt_result = self._run(batch, buckets, sampling, (), None)
        begin_fetch(self._transfers, result, prompt_result, len(shape.query_lens))()
        self._last_placed = None
        if self._step.fill is not None and not self._buckets.exact:
            token_ids = np.asarray(buckets.pad_batch(batch).token_ids)
            self._fills.rehearse(
                self._step.fill, token_ids, len(batch.logits_rows), result.token_ids
            )

    def _padding(self, shape: StepShape) -> tuple[StepBatch, Buckets, SamplingBatch]:
        batch = padding_batch(shape, self._block_size, len(self.store.plan.groups))
        sampling = padding_sampling(shape, self._vocab_size)
        buckets = self._buckets.of_step(len(batch.token_ids), len(shape.query_lens), sampling)
        logits_rows = np.asarray(batch.logits_rows)
        logits_rows = buckets.pad_rows(logits_rows, buckets.num_rows(sampling))
        return dataclasses.replace(batch, logits_rows=logits_rows), buckets, sampling

    def prepare_all(self, shapes: Sequence[StepShape]) -> Iterator[None]:
        """``prepare`` each, two at a time where no step is run.

        Raises what the first that fails has raised.
        """
        if not self._prepares:
            yield from map(self.prepare, shapes)
            return
        pool = ThreadPoolExecutor(2, "octavo-prepare")
        try:
            yield from pool.map(self.prepare, shapes)
        finally:
            pool.shutdown(cancel_futures=True)

    def prepare(self, shape: StepShape) -> None:
        """Have everything compiled or recorded that a step of this shape needs."""
        if not self._prepares:
            self.rehearse(shape)
            self.rehearse(shape)  # what is recorded is so the second time
            return
        host, buckets, sampling = self._padding(shape)
        host = buckets.pad_batch(host)
        plans = tuple(self._backend.plan(host, self._block_size))
        batch, sampling, *placed_plans = self._transfers.put(
            host, buckets.pad_sampling(sampling), *(plans if self._transfers.takes_plans else ())
        )
        inputs = (self._weights, self.store.caches, batch, tuple(placed_plans) or plans)
        result = self._step.prepare(*inputs, sampling=sampling)
        if self._step.fill is not None:
            self._fills.rehearse(
                self._step.fill.prepare,
                np.asarray(host.token_ids),
                len(host.logits_rows),
                result.token_ids,
            )

    @property
    def rehearsals(self) -> list[StepShape]:
        """The steps that the backend wants to have seen before it serves; none for most."""
        if not self._backend.caps.rehearsed:
            return []
        shapes = programs_of if self._prepares else shapes_of
        return list(shapes(self._buckets, self.store.plan.limits))

    @property
    def _prepares(self) -> bool:
        """Whether steps are compiled without being run; processes that follow run them."""
        return self._relay is None and self._step.can_prepare

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
            sampled, sampled_rows, positions, logits_rows = completions, rows, ends, last_tokens
            sample_indices = None
        else:
            wanted = self._wanted(completions, samples, special)
            sample_indices = wanted.sample_indices
            sampled = [completions[i] for i in wanted.seq_index.tolist()]
            sampled_rows, positions = rows[wanted.seq_index], ends[wanted.seq_index]
            logits_rows = last_tokens[wanted.seq_index]
        needs_host = bool(special) or self._sampler.needs_tokens(sampled_rows)
        sampling: SamplingBatch | LateSampling | None = None
        try:
            sampling = self._sampling(sampled, sampled_rows, positions, sample_indices)
            needs_host = needs_host or any(each.token_mask is not None for each in sampled)
            buckets = self._buckets.of_step(int(last_tokens[-1]) + 1, num_seqs, sampling)
            logits_rows = buckets.pad_rows(logits_rows, buckets.num_rows(sampling))
            if spans:
                prompt_rows = np.concatenate([span.rows for span in spans])
                logits_rows = np.concatenate([logits_rows, buckets.pad_rows(prompt_rows)])
            batch = self._rows.build(rows, starts, counts, logits_rows)
            token_sources = None
            if sources is not None and sources.any():
                token_sources = np.zeros(len(batch.token_ids), np.int32)
                token_sources[last_tokens] = sources * samples
            filling = None if behind is None or token_sources is None else (behind, token_sources)
            sampling, result, prompt_result = self._run(batch, buckets, sampling, spans, filling)
        finally:
            if isinstance(sampling, LateSampling):  # the step has failed
                sampling.masks.wait()
        return Flight(
            schedule=schedule,
            completions=sampled,
            rows=sampled_rows,
            sampling=sampling,
            spans=spans,
            token_ids=result.token_ids,
            fetch=begin_fetch(
                self._transfers,
                result,
                prompt_result,
                len(sampled),
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

    def _run(
        self,
        batch: StepBatch,
        buckets: Buckets,
        sampling: SamplingBatch | LateSampling,
        spans: Sequence[PromptSpan],
        filling: tuple[Flight, Int32] | None,
    ) -> tuple[SamplingBatch, SampleResult, SampleResult | None]:
        targets = sources = known = None
        if spans:
            targets = buckets.pad_rows(np.concatenate([span.targets for span in spans]))
        batch = buckets.pad_batch(batch)
        if filling is not None:
            sources = _padded_to(filling[1], len(batch.token_ids))
        if self._relay is not None and not isinstance(sampling, LateSampling):
            self._relay.step(batch, buckets.pad_sampling(sampling), targets)
        plans = tuple(self._backend.plan(batch, self._block_size))
        if not isinstance(sampling, LateSampling):
            known = self._to_place(sampling, buckets)
        batch, targets, sources, known, *placed_plans = self._transfers.put(
            batch, targets, sources, known, *(plans if self._transfers.takes_plans else ())
        )
        plans = tuple(placed_plans) or plans
        if filling is not None:
            token_ids = self._step.fill((), (), batch.token_ids, filling[0].token_ids, sources)
            batch = dataclasses.replace(batch, token_ids=token_ids)
        inputs = (self._weights, self.store.caches, batch, plans)
        if isinstance(sampling, LateSampling):
            self.store.caches, logits = self._step.forward(*inputs)
            sampling = sampling.result()
            (known,) = self._transfers.put(self._to_place(sampling, buckets))
            placed = self._placed(sampling, known, buckets)
            result, prompt_result = self._step.sample((), (), logits, placed, targets)
        else:
            placed = self._placed(sampling, known, buckets)
            self.store.caches, result, prompt_result = self._step.run(
                *inputs, sampling=placed, prompt_targets=targets
            )
        return sampling, result, prompt_result

    def _to_place(self, sampling: SamplingBatch, buckets: Buckets) -> Any:
        """What of ``sampling`` is not on the device yet: all, the draws alone, or nothing."""
        last = self._last_placed
        if (
            last is None
            or sampling.temperature is not last.host.temperature
            or buckets.num_rows(sampling) != last.num_rows
        ):
            return buckets.pad_sampling(sampling)
        return None if sampling is last.host else buckets.pad_sampling(sampling).uniform

    def _placed(self, sampling: SamplingBatch, new: Any, buckets: Buckets) -> SamplingBatch:
        """``sampling`` on the device; what comes again, of SamplerRows.build, is there already."""
        last = self._last_placed
        if last is None or hasattr(new, "temperature"):
            placed = cast("SamplingBatch", new)
        elif new is None:
            placed = last.device
        else:
            placed = dataclasses.replace(last.device, uniform=new)
        self._last_placed = _Placed(sampling, placed, buckets.num_rows(sampling))
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

    def _measure(self, flight: Flight) -> None:
        """Recomputing is prefill: steps of decodes, which are bound by weights, do not count."""
        began_s, self._ended_s = max(flight.started_s, self._ended_s), time.perf_counter()
        if flight.num_tokens < _PREFILL_TOKENS_PER_SEQ * flight.num_seqs:
            return
        measured = (self._ended_s - began_s) / flight.num_tokens
        previous = self._seconds_per_prefill_token or measured
        self._seconds_per_prefill_token = previous + _SMOOTHING * (measured - previous)


def _padded_to(values: Int32, size: int) -> Int32:
    return np.pad(values, (0, size - len(values))) if size > len(values) else values


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
