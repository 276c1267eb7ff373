"""A step on the device: its inputs are placed there, and its programs called."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from octavo.late_sampling import LateSampling
from octavo.samples import ResultPart

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.batch import StepBatch
    from octavo.compiled_step import CompiledStep
    from octavo.kv_store import KVStore
    from octavo.models.base import Weights
    from octavo.ops.protocol import Array, SampleResult, SamplingBatch
    from octavo.padding import Buckets
    from octavo.prompt_spans import PromptSpan
    from octavo.relay import Relay
    from octavo.transfers import Transfers

__all__ = ["DeviceStep", "Filling", "Sampled"]

Int32 = NDArray[np.int32]
_SCORED_TOKENS = 128
"""Of prompts, at once: their logits are the largest arrays there are."""
_SPARSE = {"seen_rows": ("seen_ids", "seen_counts"), "bias_rows": ("bias_ids", "bias_values")}


class Filling(NamedTuple):
    """Tokens that a step under way samples, for the step behind it: see ``Ops.fill_tokens``."""

    sampled: Array
    sources: Int32


@dataclass(frozen=True)
class Sampled:
    """What a step has sampled, in pieces that follow on each other; on the device."""

    sampling: SamplingBatch
    rows: list[ResultPart]
    prompt_tokens: list[ResultPart]


@dataclass(frozen=True)
class _Placed:
    """The settings of a step's rows, on the host and, padded to so many, on the device."""

    host: SamplingBatch
    device: SamplingBatch
    num_rows: int


class DeviceStep:
    """A compiled step, the weights, and what of the last step's settings can serve again."""

    def __init__(
        self,
        backend: Backend,
        compiled: CompiledStep,
        weights: Weights,
        store: KVStore,
        transfers: Transfers,
        relay: Relay | None,
        most_rows: int,
    ) -> None:
        """``most_rows`` are sampled at once, where a step is in parts."""
        self.weights: Any = weights
        self._backend = backend
        self._compiled = compiled
        self._store = store
        self._transfers = transfers
        self._relay = relay
        self._block_size = store.plan.limits.block_size
        self._last_placed: _Placed | None = None
        self._num_places = 0  # of token ids that a step leaves for the next one
        self._known_places: dict[int, Array] = {}  # by the number of rows
        if compiled.is_in_parts and backend.caps.asynchronous:
            self._num_places = most_rows + 1
            self._nothing = backend.put(np.zeros(self._num_places, np.int32))

    def forget(self) -> None:
        """Let go of the settings of the last step."""
        self._last_placed = None

    def run(
        self,
        batch: StepBatch,
        buckets: Buckets,
        sampling: SamplingBatch | LateSampling,
        spans: Sequence[PromptSpan] = (),
        filling: Filling | None = None,
    ) -> Sampled:
        """One step; ``batch`` has a row of logits for each row that is sampled."""
        if self._compiled.is_in_parts:
            return self._run_parts(batch, buckets, sampling, spans, filling)
        logits_rows = np.asarray(batch.logits_rows)
        num_rows, targets = len(logits_rows), None
        logits_rows = buckets.pad_rows(logits_rows, buckets.num_rows(sampling))
        if spans:
            prompt_rows, targets = _rows_and_targets(spans)
            targets = buckets.pad_rows(targets)
            logits_rows = np.concatenate([logits_rows, buckets.pad_rows(prompt_rows)])
        batch = dataclasses.replace(batch, logits_rows=logits_rows)
        if isinstance(sampling, LateSampling):
            inputs, (targets,) = self._placed_inputs(batch, buckets, filling, targets)
            self._store.caches, logits = self._compiled.forward(*inputs)
            sampling = sampling.result()
            placed = self._place(sampling, buckets)
            result, prompt_result = self._compiled.sample((), (), logits, placed, targets)
        else:
            if self._relay is not None:
                padded = buckets.pad_batch(batch), buckets.pad_sampling(sampling)
                self._relay.step(*padded, targets)
            new = self._to_place(sampling, buckets)
            inputs, (targets, new) = self._placed_inputs(batch, buckets, filling, targets, new)
            placed = self._placed(sampling, new, buckets)
            self._store.caches, result, prompt_result = self._compiled.run(
                *inputs, sampling=placed, prompt_targets=targets
            )
        num_targets = sum(len(span.targets) for span in spans)
        prompt_parts = [] if prompt_result is None else [ResultPart(prompt_result, num_targets)]
        return Sampled(sampling, [ResultPart(result, num_rows)], prompt_parts)

    def _run_parts(
        self,
        batch: StepBatch,
        buckets: Buckets,
        sampling: SamplingBatch | LateSampling,
        spans: Sequence[PromptSpan],
        filling: Filling | None,
    ) -> Sampled:
        """A step by its parts, none of which has another shape for what is asked of it."""
        rows = np.asarray(batch.logits_rows)
        sources = None
        if len(rows) > buckets.most_rows:  # answers to few prompts
            rows, sources = np.unique(rows, return_inverse=True)
            logits_rows = buckets.pad_rows(rows, buckets.most_rows + 1)
        else:
            logits_rows = buckets.pad_rows(rows, buckets.num_rows(sampling))
        batch = dataclasses.replace(batch, logits_rows=logits_rows)
        new = None
        if not isinstance(sampling, LateSampling) and sources is None:
            new = self._to_place(sampling, buckets)
        inputs, (new,) = self._placed_inputs(batch, buckets, filling, new)
        self._store.caches, logits, hidden = self._compiled.forward(*inputs)
        prompt_parts = self._score(hidden, spans)
        if isinstance(sampling, LateSampling):
            sampling = sampling.result()
            if sources is None:
                new = self._to_place(sampling, buckets)
                (new,) = self._transfers.put(new)
        if sources is not None:
            return Sampled(sampling, self._sample(logits, sampling, sources, buckets), prompt_parts)
        placed = self._placed(sampling, new, buckets)
        result = self._compiled.sample((), (), logits, placed, self._places(buckets, sampling))
        return Sampled(sampling, [ResultPart(result, len(rows))], prompt_parts)

    def _sample(
        self, logits: Array, sampling: SamplingBatch, sources: NDArray[np.intp], buckets: Buckets
    ) -> list[ResultPart]:
        """More rows than a program samples; ``sources`` are the rows of ``logits`` for them."""
        parts = []
        for start in range(0, len(sources), buckets.most_rows):
            piece = _part_of(sampling, start, start + buckets.most_rows)
            own = sources[start : start + buckets.most_rows].astype(np.int32)
            padded = buckets.pad_rows(own, buckets.num_rows(piece))
            placed, rows = self._transfers.put(buckets.pad_sampling(piece), padded)
            chosen = self._compiled.pick((), (), logits, rows)
            result = self._compiled.sample((), (), chosen, placed, self._places(buckets, piece))
            parts.append(ResultPart(result, len(own)))
        return parts

    def _score(self, hidden: Array, spans: Sequence[PromptSpan]) -> list[ResultPart]:
        """Log-probabilities of prompts, some tokens at a time."""
        if not spans:
            return []
        all_rows, all_targets = _rows_and_targets(spans)
        size, parts = _num_scored(hidden), []
        for start in range(0, len(all_rows), size):
            rows, targets = (each[start : start + size] for each in (all_rows, all_targets))
            placed = self._transfers.put(_padded_to(rows, size), _padded_to(targets, size))
            result = self._compiled.score(self.weights, (), hidden, *placed)
            parts.append(ResultPart(result, len(rows)))
        return parts

    def _placed_inputs(
        self, batch: StepBatch, buckets: Buckets, filling: Filling | None, *more: Any
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """What ``forward`` and a step begin with; and ``more``, placed with it."""
        padded = buckets.pad_batch(batch)
        sampled = sources = None
        if filling is not None:
            sampled, sources = filling.sampled, _padded_to(filling.sources, len(padded.token_ids))
        elif self._num_places:
            sampled, sources = self._nothing, np.zeros(len(padded.token_ids), np.int32)
        plans = tuple(self._backend.plan(padded, self._block_size))
        takes_plans = self._transfers.takes_plans
        placed, sources, placed_more, placed_plans = self._transfers.put(
            padded, sources, more, plans if takes_plans else ()
        )
        if takes_plans:
            plans = placed_plans
        if self._compiled.is_in_parts:
            return (self.weights, self._store.caches, placed, plans, sampled, sources), placed_more
        if filling is not None:
            token_ids = self._compiled.fill((), (), placed.token_ids, sampled, sources)
            placed = dataclasses.replace(placed, token_ids=token_ids)
        return (self.weights, self._store.caches, placed, plans), placed_more

    def _places(self, buckets: Buckets, sampling: SamplingBatch) -> Array | None:
        """Where the next step finds the tokens of these rows: see ``make_sample_part``."""
        if not self._num_places:
            return None
        num_rows = buckets.num_rows(sampling)
        if num_rows not in self._known_places:
            places = _padded_to(np.arange(1, num_rows + 1, dtype=np.int32), self._num_places)
            self._known_places[num_rows] = self._backend.put(places)
        return self._known_places[num_rows]

    def _place(self, sampling: SamplingBatch, buckets: Buckets) -> SamplingBatch:
        (new,) = self._transfers.put(self._to_place(sampling, buckets))
        return self._placed(sampling, new, buckets)

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

    def prepare_logits(self, batch: StepBatch, buckets: Buckets, sampling: SamplingBatch) -> Array:
        """Have all compiled that such a step runs before it samples; what stands for its logits.

        Only where ``CompiledStep.can_prepare``.
        """
        logits_rows = buckets.pad_rows(np.asarray(batch.logits_rows), buckets.num_rows(sampling))
        batch = dataclasses.replace(batch, logits_rows=logits_rows)
        inputs, (rows,) = self._placed_inputs(batch, buckets, None, logits_rows)
        _, logits, hidden = self._compiled.forward.prepare(*inputs)
        scored = np.zeros(_num_scored(hidden), np.int32)
        placed = self._transfers.put(scored, scored.copy())
        self._compiled.score.prepare(self.weights, (), hidden, *placed)
        if buckets.has_spare_row:
            self._compiled.pick.prepare((), (), logits, rows)
        return cast("Array", logits)

    def prepare_sample(
        self, logits: Array, buckets: Buckets, sampling: SamplingBatch
    ) -> SampleResult:
        """Have compiled what samples so; what stands for its result."""
        (placed,) = self._transfers.put(buckets.pad_sampling(sampling))
        places = self._places(buckets, sampling)
        return cast("SampleResult", self._compiled.sample.prepare((), (), logits, placed, places))


def _num_scored(hidden: Array) -> int:
    """Prompt tokens that ``CompiledStep.score`` takes at once, of a step with so many."""
    return min(_SCORED_TOKENS, int(hidden.shape[0]))


def _rows_and_targets(spans: Sequence[PromptSpan]) -> tuple[Int32, Int32]:
    rows = np.concatenate([span.rows for span in spans])
    return rows, np.concatenate([span.targets for span in spans])


def _part_of(sampling: SamplingBatch, start: int, stop: int) -> SamplingBatch:
    """The settings of some rows, on the host."""
    num_rows = len(sampling.temperature)
    changes: dict[str, Any] = {}
    for rows_name, names in _SPARSE.items():
        rows = np.asarray(getattr(sampling, rows_name))
        own = (rows >= start) & (rows < stop)
        changes[rows_name] = rows[own] - np.int32(start)
        changes |= {name: getattr(sampling, name)[own] for name in names}
    for name, value in vars(sampling).items():
        if name not in changes and isinstance(value, np.ndarray) and len(value) == num_rows:
            changes[name] = value[start:stop]
    return dataclasses.replace(sampling, **changes)


def _padded_to(values: Int32, size: int) -> Int32:
    return np.pad(values, (0, size - len(values))) if size > len(values) else values
