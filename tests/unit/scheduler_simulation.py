"""An engine around a Scheduler and a PagedExecutor: arrivals, aborts, forks, speculation."""

from __future__ import annotations

from dataclasses import dataclass, field

from paged_executor import VOCABULARY, PagedExecutor, fingerprints, next_token

from octavo.errors import CapacityError
from octavo.request import FinishReason, Request
from octavo.scheduler import GroupConfig, PreemptionCosts, Scheduler, SchedulerConfig

STOP_TOKEN = 0
MAX_STEPS = 3000


@dataclass(frozen=True)
class Job:
    """One request of a scenario."""

    prompt: list[int]
    max_tokens: int
    arrival_step: int = 0
    priority: int = 0
    salt: str | None = None
    seed: int = 0
    stops: bool = False
    use_prefix_cache: bool = True
    max_chunk_tokens: int | None = None
    abort_after_steps: int | None = None
    aborts_in_flight: bool = False
    fork_after_tokens: int | None = None
    num_children: int = 1
    child_priority: int = 0
    num_drafts: int = 0


@dataclass(frozen=True)
class Scenario:
    """A cache, a configuration and what happens to it."""

    config: SchedulerConfig
    groups: list[GroupConfig]
    jobs: list[Job]
    costs: PreemptionCosts | None = None
    reset_step: int | None = None


@dataclass
class Live:
    """A request under way."""

    job: Job
    request: Request
    seed: int
    known: int  # tokens that are settled; what follows in the request are drafts
    age_steps: int = 0
    has_forked: bool = False


@dataclass
class Simulation:
    """Runs a scenario to its end and checks everything on the way."""

    scenario: Scenario
    done: list[Live] = field(default_factory=list)
    live: dict[Request, Live] = field(default_factory=dict)
    num_refused: int = 0
    num_steps: int = 0
    num_forks: int = 0

    def __post_init__(self):
        self.scheduler = Scheduler(self.scenario.config, self.scenario.groups, self.scenario.costs)
        self.executor = PagedExecutor(self.scenario.config, self.scenario.groups)

    def run(self):
        """Until all jobs have arrived and ended."""
        jobs = sorted(self.scenario.jobs, key=lambda job: job.arrival_step)
        while jobs or self.scheduler.has_unfinished:
            while jobs and jobs[0].arrival_step <= self.num_steps:
                self._arrive(jobs.pop(0))
            self._abort(in_flight=False)
            if self.num_steps == self.scenario.reset_step:
                self.scheduler.reset_prefix_cache()
            self._step()
            self.num_steps += 1
            assert self.num_steps < MAX_STEPS, f"no end in sight: {self.scheduler.stats}"
        self._check_end()
        return self

    def _arrive(self, job):
        request = Request(
            request_id=f"job{len(self.done) + len(self.live) + self.num_refused}",
            prompt_token_ids=list(job.prompt),
            max_tokens=job.max_tokens,
            priority=job.priority,
            cache_salt=job.salt,
            use_prefix_cache=job.use_prefix_cache,
            max_chunk_tokens=job.max_chunk_tokens,
        )
        try:
            self.scheduler.add(request)
        except CapacityError:
            self.num_refused += 1
        else:
            self.live[request] = Live(job, request, job.seed, len(job.prompt))

    def _abort(self, *, in_flight):
        for request, live in list(self.live.items()):
            is_due = live.job.abort_after_steps == live.age_steps
            if is_due and live.job.aborts_in_flight == in_flight:
                assert self.scheduler.abort(request.request_id) is request
                assert request.finish_reason is FinishReason.ABORT
                self._leave(request)
                self.scheduler.check_integrity()

    def _step(self):
        for live in self.live.values():
            self._draft(live)
        schedule = self.scheduler.schedule()
        self._check_schedule(schedule)
        queries = self.executor.prepare(schedule)
        self.scheduler.check_integrity()
        self._abort(in_flight=True)
        self.executor.run(schedule, queries)
        self.scheduler.commit(schedule)
        self.scheduler.check_integrity()
        for request in schedule.requests:
            live = self.live.get(request)
            if live is not None and request.num_computed_tokens >= live.known:
                self._sample(live)
        self.scheduler.check_integrity()
        for live in self.live.values():
            live.age_steps += 1

    def _check_schedule(self, schedule):
        assert schedule.requests or not self.scheduler.has_unfinished, "nobody advances"
        assert sum(schedule.num_tokens) <= self.scenario.config.max_num_batched_tokens
        assert self.scheduler.num_running <= self.scenario.config.max_num_seqs
        are_prefilling = [request.is_prefilling for request in schedule.requests]
        assert are_prefilling == sorted(are_prefilling), "decodes come first"
        for request, num_tokens in zip(schedule.requests, schedule.num_tokens, strict=True):
            limit = request.max_chunk_tokens
            assert not request.is_prefilling or limit is None or num_tokens <= limit

    def _draft(self, live):
        """Guess tokens for a decoding request; some are right. Drafts that did not run go."""
        request = live.request
        del request.output_token_ids[live.known - len(request.prompt_token_ids) :]
        if live.job.num_drafts and not request.is_prefilling and request.row >= 0:
            room = live.job.max_tokens - len(request.output_token_ids) - 1
            for index in range(min(live.job.num_drafts, room)):
                request.output_token_ids.append((self.num_steps + index) % VOCABULARY)

    def _sample(self, live):
        """Check the drafts that were computed, keep the right ones, add the next token."""
        request = live.request
        values = fingerprints(request.cache_salt, request.token_ids(0, request.num_computed_tokens))
        accepted = live.known
        while accepted < len(values) and request.token_ids(accepted, accepted + 1) == [
            next_token(values[accepted - 1], live.seed)
        ]:
            accepted += 1
        del request.output_token_ids[accepted - len(request.prompt_token_ids) :]
        self.scheduler.rollback(request, request.num_computed_tokens - accepted)
        token = next_token(values[accepted - 1], live.seed)
        if live.job.fork_after_tokens == len(request.output_token_ids) and not live.has_forked:
            self._fork(live, values[accepted - 1])
        request.output_token_ids.append(token)
        live.known = accepted + 1
        if live.job.stops and STOP_TOKEN in request.output_token_ids:
            del request.output_token_ids[request.output_token_ids.index(STOP_TOKEN) + 1 :]
            reason = FinishReason.STOP
        elif len(request.output_token_ids) >= live.job.max_tokens:
            reason = FinishReason.LENGTH
        else:
            return
        self.scheduler.finish(request, reason)
        self._leave(request)

    def _fork(self, live, value):
        live.has_forked = True
        for number in range(1, live.job.num_children + 1):
            seed = live.seed + 1000 * number
            parent = live.request
            outputs = [*parent.output_token_ids, next_token(value, seed)]
            has_stopped = live.job.stops and STOP_TOKEN in outputs
            if has_stopped or len(outputs) >= live.job.max_tokens:
                continue
            child = Request(
                request_id=f"{parent.request_id}.{number}",
                prompt_token_ids=parent.prompt_token_ids,
                output_token_ids=outputs,
                max_tokens=live.job.max_tokens,
                priority=live.job.child_priority,
                cache_salt=parent.cache_salt,
                max_chunk_tokens=parent.max_chunk_tokens,
            )
            self.num_forks += self.scheduler.fork(parent, child)
            known = len(live.job.prompt) + len(outputs)
            self.live[child] = Live(live.job, child, seed, known, has_forked=True)
            self.scheduler.check_integrity()

    def _leave(self, request):
        self.done.append(self.live.pop(request))

    def _check_end(self):
        for live in self.done:
            self._check_output(live)
        stats = self.scheduler.stats
        assert [group.num_used for group in stats.groups] == [0] * len(stats.groups)
        assert [group.num_host_used for group in stats.groups] == [0] * len(stats.groups)
        self.scheduler.reset_prefix_cache()
        self.scheduler.check_integrity()
        for group, unused in zip(self.scenario.groups, self.scheduler.stats.groups, strict=True):
            assert unused.num_unused == group.num_blocks - 1

    def _check_output(self, live):
        """The tokens are those of a run that knows no batch, no block and no preemption."""
        request, tokens = live.request, list(live.job.prompt)
        num_inherited = len(request.output_token_ids)
        if live.has_forked and live.seed != live.job.seed:
            num_inherited = live.job.fork_after_tokens
        for index, token in enumerate(request.output_token_ids):
            seed = live.job.seed if index < num_inherited else live.seed
            if request.finish_reason is FinishReason.ABORT and len(tokens) >= live.known:
                break  # drafts nobody checked
            assert token == next_token(fingerprints(live.job.salt, tokens)[-1], seed)
            tokens.append(token)
        if request.finish_reason is FinishReason.LENGTH:
            assert len(request.output_token_ids) == live.job.max_tokens
        if request.finish_reason is FinishReason.STOP:
            assert request.output_token_ids.index(STOP_TOKEN) == len(request.output_token_ids) - 1
