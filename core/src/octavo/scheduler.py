"""Continuous batching over paged blocks: requests come in, steps come out."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.block_tables import BlockTables
from octavo.blocks import BlockPool
from octavo.errors import QueueFullError, UsageError
from octavo.prefix_cache import root_hash
from octavo.request import FinishReason, Request, RequestStatus
from octavo.scheduling.capacity import check_capacity
from octavo.scheduling.config import GroupConfig, PreemptionCosts, SchedulerConfig
from octavo.scheduling.integrity import check_roster, check_tables
from octavo.scheduling.planner import Planner
from octavo.scheduling.roster import Roster
from octavo.scheduling.schedule import Schedule
from octavo.scheduling.stats import Counters, GroupStats, SchedulerStats

__all__ = [
    "GroupConfig",
    "PreemptionCosts",
    "Schedule",
    "Scheduler",
    "SchedulerConfig",
    "SchedulerStats",
]


class Scheduler:
    """Decides who runs; holds ids and counts, never an array.

    The cycle: ``schedule``, run the step, ``commit``, then append the sampled tokens to each
    request that reached its last known token (at least one each, or ``finish`` it), and again.
    ``finish`` and ``abort`` may come at any moment; a step under way runs on as planned.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        groups: Sequence[GroupConfig],
        swap_costs: PreemptionCosts | None = None,
    ) -> None:
        if not groups:
            raise UsageError("the scheduler needs at least one KV group; the list is empty")
        if config.preemption_mode == "swap" and not all(g.num_host_blocks for g in groups):
            raise UsageError(
                "preemption_mode='swap' needs host blocks in every KV group, but num_host_blocks "
                f"is {[g.num_host_blocks for g in groups]}. Give swap space, or use 'recompute'"
            )
        self.config = config
        self._tables = BlockTables(
            config.block_size, groups, enable_prefix_caching=config.enable_prefix_caching
        )
        self._roster = Roster(config.max_num_seqs, use_priority=config.policy == "priority")
        self._counters = Counters()
        self._planner = Planner(config, self._tables, self._roster, self._counters, swap_costs)

    @property
    def num_waiting(self) -> int:
        """Requests in the queue, those to be recomputed included."""
        return len(self._roster.waiting)

    @property
    def num_running(self) -> int:
        """Requests that hold a row."""
        return len(self._roster.running)

    @property
    def num_swapped(self) -> int:
        """Requests whose blocks are on the host."""
        return len(self._roster.swapped)

    @property
    def has_unfinished(self) -> bool:
        """There is still something to do."""
        return bool(self._roster.by_id)

    @property
    def unfinished(self) -> list[Request]:
        """Requests that run, then those that are swapped out, then those that wait; by rank."""
        roster = self._roster
        return [*roster.running, *roster.swapped, *roster.waiting]

    @property
    def pools(self) -> Sequence[BlockPool]:
        """The device blocks of each KV group; only to be read."""
        return self._tables.pools

    def set_preemption_costs(self, costs: PreemptionCosts) -> None:
        """What preemption costs by the latest measurements, for ``preemption_mode="auto"``."""
        self._planner.swap_costs = costs

    @property
    def stats(self) -> SchedulerStats:
        """A snapshot of the counters."""
        counters = self._counters
        return SchedulerStats(
            num_waiting=self.num_waiting,
            num_running=self.num_running,
            num_swapped=self.num_swapped,
            groups=tuple(
                GroupStats(
                    num_used=pool.num_usable - pool.num_free,
                    num_cached=pool.num_cached,
                    num_unused=pool.num_free - pool.num_cached,
                    num_host_used=host_pool.num_blocks - host_pool.num_free,
                    num_host_free=host_pool.num_free,
                )
                for pool, host_pool in zip(self._tables.pools, self._tables.host_pools, strict=True)
            ),
            num_recompute_preemptions=counters.num_recompute_preemptions,
            num_swap_preemptions=counters.num_swap_preemptions,
            num_prefix_query_tokens=counters.num_prefix_query_tokens,
            num_prefix_hit_tokens=counters.num_prefix_hit_tokens,
        )

    def add(self, request: Request) -> None:
        """Queue a request.

        Raises QueueFullError if the queue is full, CapacityError if the request could never run to
        its end, UsageError if its id is in use or its cache salt unusable.
        """
        self._roster.check_new(request)
        self.check_room(request.request_id)
        self._enter(request)
        self._roster.queue(request, RequestStatus.WAITING)

    def check_room(self, request_id: str) -> None:
        """Raise QueueFullError if one more may not wait: before work is spent on preparing it."""
        max_num_waiting = self.config.max_num_waiting
        if max_num_waiting is not None and self.num_waiting >= max_num_waiting:
            raise QueueFullError(
                f"request {request_id!r} was refused: {self.num_waiting} requests wait "
                f"({max_num_waiting=}) and {self.num_running} run. Send it again later, or raise "
                "max_num_waiting"
            )

    def fork(self, parent: Request, child: Request) -> bool:
        """Start a request that shares the parent's computed blocks, copied when written to.

        The child has the parent's prompt and salt, and its output as far as that is computed.
        True: it runs, in a row of its own. False: the parent does not run or no more may, so the
        child waits where the parent would, and is recomputed.
        """
        self._roster.check_new(child)
        runs = parent.status is RequestStatus.RUNNING and self._roster.has_room
        if runs:
            _check_same_content(parent, child)
        self._enter(child, behind=parent)
        if runs:
            self._tables.share(parent, child)
            child.is_prefilling = parent.is_prefilling
            child.num_cached_tokens = parent.num_cached_tokens
            self._roster.start(child)
        else:
            self._roster.queue(child, RequestStatus.WAITING)
        return runs

    def _enter(self, request: Request, behind: Request | None = None) -> None:
        check_capacity(request, self.config, self._tables)
        root_hash(request.cache_salt)  # refuse an unusable salt now, not in the middle of a step
        self._roster.enter(request, behind)
        self._tables.open(request)

    def rollback(self, request: Request, num_tokens: int) -> None:
        """Take back the last ``num_tokens`` computed tokens (rejected by speculation).

        Speculation appends its drafts to ``output_token_ids`` before ``schedule``. After
        ``commit`` it removes the rejected ones and calls this; drafts of requests that did not run
        in the step it removes as well. Rolling back further than the first token of the last step
        raises ValueError where a window has passed.
        """
        num_computed_tokens = request.num_computed_tokens - num_tokens
        if num_tokens < 0 or num_computed_tokens < 0 or request.row < 0:
            raise ValueError(
                f"cannot take back {num_tokens} of the {request.num_computed_tokens} computed "
                f"tokens of request {request.request_id!r}, which is {request.status.value}"
            )
        if num_tokens:
            self._tables.truncate(request, num_computed_tokens)

    def finish(self, request: Request, reason: FinishReason) -> None:
        """End an unfinished request at any moment and free all it holds."""
        if self._roster.by_id.get(request.request_id) is not request:
            raise ValueError(
                f"request {request.request_id!r} is not here: it is {request.status.value}"
                f" with {request.finish_reason=}"
            )
        self._roster.finish(request, reason)
        self._tables.release(request)

    def abort(self, request_id: str) -> Request | None:
        """End a request by its id; None if there is no such unfinished request."""
        request = self._roster.by_id.get(request_id)
        if request is not None:
            self.finish(request, FinishReason.ABORT)
        return request

    def schedule(self, alone: Request | None = None) -> Schedule:
        """Plan the next step.

        With ``alone``, which must be unfinished, of that request only; it comes after
        ``start_all_over``, so that no other holds a row.
        """
        return self._planner.plan(alone)

    def start_over(self, request: Request) -> None:
        """Put a request that runs or is swapped out back into the queue, to be recomputed."""
        self._planner.start_over(request)

    def start_all_over(self) -> None:
        """Take everything back from everybody, on the device and on the host; all wait then."""
        for request in [*self._roster.running, *self._roster.swapped]:
            self._planner.start_over(request)
        self._roster.new_requests.clear()

    def stop_swapping(self) -> None:
        """Preempt by recompute only from now on: copies to the host fail."""
        self._planner.can_swap = False

    def limit_running(self, max_running: int | None) -> None:
        """Run so many requests at once, at least 1; None takes the limit back."""
        self._roster.max_running = max_running or self.config.max_num_seqs

    def commit(self, schedule: Schedule) -> None:
        """Note that the step has run; before the sampled tokens are appended."""
        register = self._tables.register
        for request, num_tokens in zip(schedule.requests, schedule.num_tokens, strict=True):
            if request.row < 0:  # ended meanwhile
                continue
            num_computed_tokens = request.num_computed_tokens + num_tokens
            request.num_computed_tokens = num_computed_tokens
            if num_computed_tokens >= request.register_at:
                register(request)
        for request in schedule.requests[schedule.num_decodes :]:
            request.is_prefilling = request.num_computed_tokens < request.num_tokens

    def reset_prefix_cache(self) -> int:
        """Forget the content of blocks that nobody uses; returns how many there were."""
        return sum(pool.forget_cached() for pool in self._tables.pools)

    def forget_content(self, request: Request) -> None:
        """Let nobody find what this request has computed: it is not known to be good."""
        self._tables.forget_content(request)

    def check_integrity(self) -> None:
        """Raise AssertionError, saying what is wrong, if any invariant is broken."""
        check_roster(self._roster, self.config.max_num_seqs)
        check_tables(self._tables, self._roster)


def _check_same_content(parent: Request, child: Request) -> None:
    """Raise ValueError if the child's tokens or salt would not give the parent's KV."""
    num_computed_tokens = parent.num_computed_tokens
    if parent.cache_salt != child.cache_salt or (
        parent.token_ids(0, num_computed_tokens) != child.token_ids(0, num_computed_tokens)
    ):
        raise ValueError(
            f"request {child.request_id!r} cannot share the blocks of {parent.request_id!r}: their "
            f"cache salts or first {num_computed_tokens} tokens differ. Add it as a new request"
        )
