"""Plans one step: running requests by rank, then the queue; preempts when blocks run out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from octavo.block_tables import BlockTables
from octavo.request import Request, RequestStatus
from octavo.scheduling.capacity import smallest_chunk
from octavo.scheduling.config import PreemptionCosts, SchedulerConfig
from octavo.scheduling.preemption import should_swap
from octavo.scheduling.roster import Roster
from octavo.scheduling.schedule import Schedule
from octavo.scheduling.stats import Counters

__all__ = ["Planner"]


@dataclass(slots=True)
class _Step:
    """The step being put together."""

    tokens_left: int
    decodes: list[Request] = field(default_factory=list)
    decode_tokens: list[int] = field(default_factory=list)
    prefills: list[Request] = field(default_factory=list)
    prefill_tokens: list[int] = field(default_factory=list)
    is_short: bool = False
    """Blocks ran out: somebody was preempted or stands still, so nobody new may start."""


class Planner:
    """Shares tokens and blocks of each step among the requests of a roster.

    Why every request that fits alone ends: the running request of the lowest rank can take blocks
    from all others and is never preempted, so it advances in every step; what is preempted or
    queued starts again in order of rank, and nobody overtakes the head of the queue.

    Why no block is overwritten while somebody still needs it: requests already planned for this
    step are never preempted in it (victims rank behind the one being planned, and starting comes
    last), and sources of copies stay pinned until the step is complete.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        tables: BlockTables,
        roster: Roster,
        counters: Counters,
        swap_costs: PreemptionCosts | None,
    ) -> None:
        self._config = config
        self._tables = tables
        self._roster = roster
        self._counters = counters
        self.swap_costs = swap_costs  # the engine keeps it up to date
        self.can_swap = True  # until a copy to or from the host has failed
        self._smallest_pool = min(pool.num_usable for pool in tables.pools)

    def plan(self, alone: Request | None = None) -> Schedule:
        """The next step; with ``alone`` only that request's, and no other may hold a row."""
        step = _Step(self._config.max_num_batched_tokens)
        self._continue_running(step)
        if alone is not None:
            if alone.row < 0:
                self._try_start(alone, step, [0] * len(self._tables.pools))
        elif self._roster.num_queued and not step.is_short:
            self._start_queued(step)
        if step.prefills and step.tokens_left:
            self._extend_chunks(step)
        return self._complete(step)

    def _continue_running(self, step: _Step) -> None:
        """Give tokens and blocks to the running requests in order of rank.

        The hot loop: a decode whose next position lies in a block of its own costs a few
        attribute reads, whatever its context length.
        """
        tokens_left = step.tokens_left
        prefill_tokens_left = -1  # not counted yet
        add_decode, add_decode_tokens = step.decodes.append, step.decode_tokens.append
        for request in self._roster.running:  # shrinks behind us when somebody is preempted
            num_computed = request.num_computed_tokens
            wanted = len(request.prompt_token_ids) + len(request.output_token_ids) - num_computed
            if request.num_sampling:
                # Its next token is on the way. If that is the last one, nothing comes after it.
                wanted += int(len(request.output_token_ids) + 1 < request.max_tokens)
            is_prefilling = request.is_prefilling
            if is_prefilling:
                if prefill_tokens_left < 0:
                    prefill_tokens_left = self._count_prefill_tokens(request, wanted)
                wanted = self._cut_chunk(request, wanted, min(prefill_tokens_left, tokens_left))
            elif wanted > tokens_left:
                wanted = tokens_left
            if wanted > 0 and num_computed + wanted > request.writable_tokens:
                wanted = self._make_room(request, wanted, step)
            if wanted <= 0:
                continue
            tokens_left -= wanted
            if is_prefilling:
                prefill_tokens_left -= wanted
                step.prefills.append(request)
                step.prefill_tokens.append(wanted)
            else:
                add_decode(request)
                add_decode_tokens(wanted)
        step.tokens_left = tokens_left

    def _count_prefill_tokens(self, first: Request, num_remaining: int) -> int:
        """Tokens for running prefills: what decodes leave, but enough that the first advances.

        Decodes leave too little only if speculation asks for more than the budget. They may even
        stand still for want of blocks that the first prefill holds, so it must not wait for them.
        """
        num_decode_tokens = sum(
            request.num_tokens + request.num_sampling - request.num_computed_tokens
            for request in self._roster.running
            if not request.is_prefilling
        )
        return max(
            self._config.max_num_batched_tokens - num_decode_tokens,
            smallest_chunk(first, num_remaining, self._config),
        )

    def _cut_chunk(self, request: Request, num_remaining: int, tokens_left: int) -> int:
        """Size of the next prefill chunk; 0 if it must wait.

        While others wait for tokens, one chunk takes half of what is left, so that a huge prompt
        never shuts them out; ``_extend_chunks`` hands back what nobody took.
        """
        wanted = min(num_remaining, request.max_chunk_tokens or num_remaining)
        if not self._config.enable_chunked_prefill:
            return wanted if wanted <= tokens_left else 0
        if wanted > tokens_left // 2 and self._is_awaited(request):
            wanted = min(wanted, max(tokens_left // 2, self._config.block_size))
        return min(wanted, tokens_left)

    def _is_awaited(self, request: Request) -> bool:
        """Somebody whose turn comes later in this step wants prefill tokens too."""
        if request.row < 0:
            return self._roster.num_queued > 1
        return self._roster.num_queued > 0 or any(
            other.is_prefilling and other.rank > request.rank for other in self._roster.running
        )

    def _make_room(self, request: Request, wanted: int, step: _Step) -> int:
        """Give the request blocks for ``wanted`` tokens, or fewer; preempt others if there is none.

        Returns the number of tokens it can run; 0 if it has to stand still, keeping its blocks.
        """
        tables = self._tables
        needed, fitting = 1, 0
        if request.is_prefilling:
            needed = smallest_chunk(request, wanted, self._config)
            fitting = tables.count_fitting(request, spare_blocks=self._count_spare_blocks())
        if fitting < needed:
            fitting = tables.count_fitting(request)
        while fitting < needed:
            step.is_short = True
            victim = self._roster.running.last
            if victim is request:
                return 0
            self._preempt(victim)
            fitting = tables.count_fitting(request)
        wanted = min(wanted, fitting)
        tables.grow(request, wanted)
        return wanted

    def _count_spare_blocks(self) -> int:
        """Blocks per group that prefill leaves to running decodes, which soon need one each."""
        return min(len(self._roster.running), self._smallest_pool // 100 + 1)

    def _preempt(self, request: Request) -> None:
        """Take the blocks of a request that is not part of this step."""
        if self.can_swap and should_swap(request, self._tables, self._config, self.swap_costs):
            self._roster.leave(request)
            request.num_preemptions += 1
            self._counters.num_swap_preemptions += 1
            self._tables.swap_out(request)
            self._roster.queue(request, RequestStatus.SWAPPED)
        else:
            self.start_over(request)

    def start_over(self, request: Request) -> None:
        """Put a request that runs or is swapped out back into the queue, holding nothing."""
        self._roster.leave(request)
        request.num_preemptions += 1
        self._counters.num_recompute_preemptions += 1
        self._tables.release(request)
        request.num_computed_tokens = 0
        request.is_prefilling = True
        self._roster.queue(request, RequestStatus.WAITING)

    def _start_queued(self, step: _Step) -> None:
        """Start or resume queued requests in order of rank, until one does not fit."""
        roster = self._roster
        reserved = [0] * len(self._tables.pools)
        for request in roster.running:
            if request.is_prefilling:
                self._reserve(request, reserved)
        while step.tokens_left > 0 and roster.has_room:
            queued = roster.next_queued()
            if queued is None or not self._try_start(queued, step, reserved):
                return

    def _reserve(self, request: Request, reserved: list[int]) -> None:
        """Add the blocks that a prefill in progress will still ask for."""
        for group in range(len(reserved)):
            needed = self._count_needed(request, group, request.num_computed_tokens)
            reserved[group] += max(0, needed - self._tables.count_held(request, group))

    def _count_needed(self, request: Request, group: int, num_computed_tokens: int) -> int:
        """Blocks that the request holds at most, from here to the end of its prefill."""
        num_tokens = request.num_tokens
        chunk = smallest_chunk(request, num_tokens - num_computed_tokens, self._config)
        return self._tables.count_blocks(group, num_tokens, num_computed_tokens, chunk)

    def _try_start(self, request: Request, step: _Step, reserved: list[int]) -> bool:
        """Bring a queued request into the step, with the blocks it computed or finds cached."""
        tables = self._tables
        is_swapped = request.status is RequestStatus.SWAPPED
        hit = 0 if is_swapped else tables.find_prefix(request)
        num_computed = request.num_computed_tokens + hit * self._config.block_size
        wanted = min(request.num_tokens - num_computed, step.tokens_left)
        if request.is_prefilling:
            remaining = request.num_tokens - num_computed
            wanted = self._cut_chunk(request, remaining, step.tokens_left)
        if wanted <= 0 or not self._can_start(request, hit, num_computed, reserved):
            return False
        self._roster.leave(request)
        if is_swapped:
            tables.swap_in(request)
        else:
            tables.attach_prefix(request, hit)
            self._count_prefix(request)
        wanted = min(wanted, tables.count_fitting(request))
        tables.grow(request, wanted)
        self._roster.start(request)
        self._add_started(request, wanted, step)
        self._reserve(request, reserved)
        return True

    def _can_start(
        self, request: Request, hit: int, num_computed: int, reserved: list[int]
    ) -> bool:
        """All its known tokens fit beside the requests that run; alone, ``add`` made sure."""
        tables = self._tables
        spare_blocks = self._count_spare_blocks()
        return all(
            self._count_needed(request, group, num_computed)
            - tables.count_used(request, group, hit)
            <= pool.num_free - reserved[group] - spare_blocks
            for group, pool in enumerate(tables.pools)
        )

    def _count_prefix(self, request: Request) -> None:
        """Note when a request runs for the first time, and report what it hit."""
        if request.first_run_time_s is None:
            request.first_run_time_s = time.monotonic()
        if request.num_preemptions == 0 and request.use_prefix_cache:
            request.num_cached_tokens = request.num_computed_tokens
            self._counters.num_prefix_query_tokens += request.num_tokens
            self._counters.num_prefix_hit_tokens += request.num_cached_tokens

    def _add_started(self, request: Request, num_tokens: int, step: _Step) -> None:
        step.tokens_left -= num_tokens
        if request.is_prefilling:
            step.prefills.append(request)
            step.prefill_tokens.append(num_tokens)
        else:
            step.decodes.append(request)
            step.decode_tokens.append(num_tokens)

    def _extend_chunks(self, step: _Step) -> None:
        """Hand tokens that nobody took to the chunks that were cut."""
        spare_blocks = self._count_spare_blocks()
        for index, request in enumerate(step.prefills):
            planned = step.prefill_tokens[index]
            remaining = request.num_tokens - request.num_computed_tokens
            wanted = min(remaining, request.max_chunk_tokens or remaining)
            wanted = min(wanted, planned + step.tokens_left)
            if wanted > planned:
                wanted = min(wanted, self._tables.count_fitting(request, spare_blocks))
            if wanted > planned:
                self._tables.grow(request, wanted)
                step.prefill_tokens[index] = wanted
                step.tokens_left -= wanted - planned

    def _complete(self, step: _Step) -> Schedule:
        tables = self._tables
        new_requests = self._roster.take_new_requests()
        for request in new_requests:
            tables.list_all(request)
        schedule = Schedule(
            requests=step.decodes + step.prefills,
            num_tokens=step.decode_tokens + step.prefill_tokens,
            num_decodes=len(step.decodes),
            copies=tables.copies,
            swap_out=tables.swap_out_pairs,
            swap_in=tables.swap_in_pairs,
            table_updates=tables.updates,
            new_requests=new_requests,
        )
        tables.begin_step()
        return schedule
