"""Before the first request: steps of padding, to have compiled or recorded what steps need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from octavo.rehearsal import (
    Fills,
    StepShape,
    padding_batch,
    padding_sampling,
    programs_of,
    shapes_of,
)
from octavo.samples import begin_fetch

if TYPE_CHECKING:
    from octavo.batch import StepBatch
    from octavo.cache_plan import CachePlan
    from octavo.compiled_step import CompiledStep
    from octavo.device_step import DeviceStep
    from octavo.ops.protocol import Array, SamplingBatch
    from octavo.padding import Buckets
    from octavo.transfers import Transfers

__all__ = ["Preparation"]


class Preparation:
    """Steps of every shape that the backend wants to have seen; a Runner has one."""

    def __init__(
        self,
        device_step: DeviceStep,
        compiled: CompiledStep,
        transfers: Transfers,
        buckets: Buckets,
        plan: CachePlan,
        vocab_size: int,
        max_logprobs: int,
    ) -> None:
        self._device_step = device_step
        self._compiled = compiled
        self._transfers = transfers
        self._buckets = buckets
        self._plan = plan
        self._vocab_size = vocab_size
        self._max_logprobs = max_logprobs
        self._fills = Fills(transfers)
        self._logits: dict[tuple[tuple[int, ...], int], Array] = {}  # what stands for them

    @property
    def shapes(self) -> list[StepShape]:
        """Those that ``prepare_all`` is for."""
        if self._compiled.can_prepare:
            return list(programs_of(self._buckets, self._plan.limits, self._max_logprobs))
        return list(shapes_of(self._buckets, self._plan.limits))

    def rehearse(self, shape: StepShape) -> None:
        """Run a step of padding, and wait for it."""
        batch, buckets, sampling = self._padding(shape)
        sampled = self._device_step.run(batch, buckets, sampling)
        begin_fetch(self._transfers, sampled.rows, [])()
        self._device_step.forget()
        if self._compiled.fill is not None and not self._buckets.exact:
            token_ids = np.asarray(buckets.pad_batch(batch).token_ids)
            num_rows, sampled_ids = buckets.num_rows(sampling), sampled.rows[0].token_ids
            self._fills.rehearse(self._compiled.fill, token_ids, num_rows, sampled_ids)

    def prepare(self, shape: StepShape) -> None:
        """Have everything compiled or recorded that a step of this shape needs."""
        if not self._compiled.can_prepare:
            self.rehearse(shape)
            self.rehearse(shape)  # what is recorded is so the second time
            return
        batch, buckets, sampling = self._padding(shape)
        num_rows = buckets.num_rows(sampling)
        key = (shape.query_lens, num_rows)
        if key not in self._logits:
            self._logits[key] = self._device_step.prepare_logits(batch, buckets, sampling)
        self._device_step.prepare_sample(self._logits[key], buckets, sampling)

    def prepare_all(self, shapes: Sequence[StepShape]) -> Iterator[None]:
        """``prepare`` each, two at a time where no step is run.

        Raises what the first that fails has raised.
        """
        if not self._compiled.can_prepare:
            yield from map(self.prepare, shapes)
            return
        pool = ThreadPoolExecutor(2, "octavo-prepare")
        try:
            yield from pool.map(self.prepare, shapes)
        finally:
            pool.shutdown(cancel_futures=True)

    def _padding(self, shape: StepShape) -> tuple[StepBatch, Buckets, SamplingBatch]:
        batch = padding_batch(shape, self._plan.limits.block_size, len(self._plan.groups))
        sampling = padding_sampling(shape, self._vocab_size)
        buckets = self._buckets.of_step(len(batch.token_ids), len(shape.query_lens), sampling)
        return batch, buckets, sampling
