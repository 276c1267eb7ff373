"""The caches of one engine, on the device and in host swap space, and the copies between them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.cache_plan import CachePlan
    from octavo.ops.protocol import Cache
    from octavo.relay import Relay
    from octavo.scheduler import Schedule

__all__ = ["KVStore"]

_LOG = logging.getLogger(__name__)
Pairs = Sequence[tuple[int, int]]
_NUM_TIMED_BLOCKS = 8


class KVStore:
    """One cache per layer; block ids mean the same in every layer of a KV group."""

    def __init__(self, backend: Backend, plan: CachePlan, relay: Relay | None = None) -> None:
        self._backend = backend
        self._relay: Relay | None = None  # everybody begins with caches of his own
        self.plan = plan
        self.layer_groups = layer_groups(plan)
        self.caches: tuple[Cache, ...] = ()
        self._host_caches: tuple[Cache, ...] = ()
        self.can_swap = True  # until a copy to or from the host has failed
        self.reset()
        self.seconds_per_swapped_block = self._time_swap()
        self._relay = relay

    def reset(self) -> None:
        """New, empty caches: at the start, and after a failed step left the old ones undefined."""
        if self._relay is not None:
            self._relay.reset()
        self.release()  # first: there may not be memory for both
        self.caches = self._make(self.plan.num_blocks, on_host=False)
        if any(self.plan.num_host_blocks):
            self._host_caches = self._make(self.plan.num_host_blocks, on_host=True)

    def release(self) -> None:
        """Give the memory back; nothing can be computed until ``reset``."""
        self.caches = self._host_caches = ()

    def _make(self, num_blocks: Sequence[int], *, on_host: bool) -> tuple[Cache, ...]:
        block_size = self.plan.limits.block_size
        return tuple(
            self._backend.make_kv(
                self.plan.groups[group].spec, num_blocks[group], block_size, on_host=on_host
            )
            for group in self.layer_groups
        )

    def _time_swap(self) -> float:
        """Seconds to move a block of every layer to the host, timed on empty blocks."""
        num_blocks = min(_NUM_TIMED_BLOCKS, *self.plan.num_blocks, *self.plan.num_host_blocks)
        if not num_blocks:
            return 0.0
        pairs = [[(block, block) for block in range(num_blocks)]] * len(self.plan.groups)
        self._host_caches = self._copied(self.caches, self._host_caches, pairs)  # touch the memory
        started_s = time.perf_counter()
        self._host_caches = self._copied(self.caches, self._host_caches, pairs)
        return (time.perf_counter() - started_s) / (num_blocks * len(pairs))

    def apply(self, schedule: Schedule) -> None:
        """Carry out a schedule's copies in the order that it relies on: out, in, then forks."""
        try:
            if any(schedule.swap_out):
                self._host_caches = self._copied(self.caches, self._host_caches, schedule.swap_out)
            if any(schedule.swap_in):
                self.caches = self._copied(self._host_caches, self.caches, schedule.swap_in)
        except Exception:
            self.can_swap = False
            _LOG.warning("Blocks cannot be moved to or from the host; recomputed from now on")
            raise
        if any(schedule.copies):
            self.copy(schedule.copies)

    def copy(self, pairs_by_group: Sequence[Pairs]) -> None:
        """Copy blocks within the device: forks."""
        if self._relay is not None:
            self._relay.copy(pairs_by_group)
        self.caches = self._copied(self.caches, self.caches, pairs_by_group)

    def _copied(
        self, src: tuple[Cache, ...], dst: tuple[Cache, ...], pairs_by_group: Sequence[Pairs]
    ) -> tuple[Cache, ...]:
        pairs = [np.array(group, np.int32).reshape(-1, 2) for group in pairs_by_group]
        return tuple(
            self._backend.copy_blocks(source, target, pairs[group]) if len(pairs[group]) else target
            for source, target, group in zip(src, dst, self.layer_groups, strict=True)
        )


def layer_groups(plan: CachePlan) -> tuple[int, ...]:
    """The KV group of each layer, in layer order."""
    group_of_layer = {
        layer: index for index, group in enumerate(plan.groups) for layer in group.layers
    }
    return tuple(group_of_layer[layer] for layer in range(len(group_of_layer)))
