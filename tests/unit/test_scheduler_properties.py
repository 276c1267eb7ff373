"""Random scenarios on a device that remembers: nothing leaks, nothing mixes, everything ends."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paged_executor import VOCABULARY
from scheduler_simulation import Job, Scenario, Simulation

from octavo.scheduler import GroupConfig, PreemptionCosts, SchedulerConfig

MAX_OUTPUT = 20
PREFIXES = [[1, 2, 3, 1, 2, 3, 3, 2, 1, 1, 0, 2], [1, 2, 3, 1, 0, 0], [2], [3]]
MAX_TAIL = 5
MAX_LEN = len(PREFIXES[0]) + MAX_TAIL + MAX_OUTPUT


def choices(*values):
    """One of the values, the first in shrunk examples; repeat a value to make it more likely."""
    return st.sampled_from(values)


@st.composite
def jobs(draw):
    tail = draw(st.lists(st.integers(0, VOCABULARY - 1), max_size=MAX_TAIL))
    return Job(
        prompt=draw(choices(*PREFIXES)) + tail,
        max_tokens=draw(choices(1, 6, 12, 16, MAX_OUTPUT)),
        arrival_step=draw(choices(0, 0, 0, 1, 3, 8)),
        priority=draw(choices(0, 1, 2)),
        salt=draw(choices(None, None, "tenant")),
        seed=draw(choices(0, 1, 2)),
        stops=draw(choices(False, False, True)),
        use_prefix_cache=draw(choices(True, True, True, False)),
        max_chunk_tokens=draw(choices(None, None, 1, 3, 5)),
        abort_after_steps=draw(choices(None, None, None, None, None, 0, 1, 4, 9)),
        aborts_in_flight=draw(st.booleans()),
        fork_after_tokens=draw(choices(None, None, None, 0, 1, 4)),
        num_children=draw(choices(1, 2, 3)),
        child_priority=draw(choices(0, 1, 2)),
        num_drafts=draw(choices(0, 0, 0, 2, 5)),
    )


@st.composite
def hungry_jobs(draw):
    """Jobs that start small, together, and grow until the cache is full."""
    return Job(
        prompt=draw(choices(*PREFIXES[1:])),
        max_tokens=draw(choices(MAX_OUTPUT, MAX_OUTPUT, 12)),
        arrival_step=draw(choices(0, 0, 2, 5)),
        priority=draw(choices(0, 1)),
        seed=draw(choices(0, 1, 2)),
        abort_after_steps=draw(choices(*[None] * 6, 7, 12)),
        aborts_in_flight=draw(st.booleans()),
        fork_after_tokens=draw(choices(None, 0, 1, 3, 7)),
        num_children=draw(choices(1, 2, 4)),
        child_priority=draw(choices(0, 1, 5)),
        num_drafts=draw(choices(0, 0, 0, 3)),
    )


@st.composite
def groups(draw, num_blocks, sizes, needs_host_blocks):
    """About ``num_blocks`` device blocks, what the longest request needs; sizes in quarters."""
    return GroupConfig(
        num_blocks=max(2, num_blocks * draw(choices(*sizes)) // 4 + 1),
        num_host_blocks=num_blocks * draw(choices(8, 2, 1, *([] if needs_host_blocks else [0]))),
        window=draw(choices(None, None, 1, 2, 5, 8)),
    )


@st.composite
def scenarios(draw, jobs=jobs(), sizes=(4, 4, 5, 6, 8, 2), seqs=(5, 4, 3, 2, 1)):  # noqa: B008
    block_size = draw(choices(2, 1, 3, 4))
    mode = draw(choices("auto", "recompute", "swap", "swap"))
    max_num_seqs = draw(choices(*seqs))
    is_chunked = draw(choices(True, True, True, False))
    least_tokens = max_num_seqs if is_chunked else MAX_LEN
    config = SchedulerConfig(
        max_model_len=MAX_LEN,
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=least_tokens + draw(choices(0, 3, 8, 20, 40)),
        enable_prefix_caching=draw(choices(True, True, True, False)),
        enable_chunked_prefill=is_chunked,
        policy=draw(choices("fcfs", "priority")),
        preemption_mode=mode,
    )
    group = groups(-(-MAX_LEN // block_size), sizes, needs_host_blocks=mode == "swap")
    return Scenario(
        config,
        groups=draw(st.lists(group, min_size=1, max_size=3)),
        jobs=draw(st.lists(jobs, min_size=3, max_size=9)),
        costs=draw(choices(None, *(PreemptionCosts(1.0, block_s) for block_s in (0.1, 1.0, 9.0)))),
        reset_step=draw(choices(None, None, 4, 12)),
    )


tight_scenarios = scenarios(hungry_jobs(), sizes=(4, 4, 3), seqs=(8, 6, 5))


def bounded(max_examples):
    return settings(
        max_examples=max_examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@bounded(200)
@given(scenarios())
def test_every_request_ends_with_the_tokens_of_a_run_alone(scenario):
    Simulation(scenario).run()


@bounded(120)
@given(tight_scenarios)
def test_every_request_ends_when_the_cache_is_far_too_small(scenario):
    Simulation(scenario).run()


@pytest.mark.slow
@bounded(3_000)
@given(scenarios() | tight_scenarios)
def test_many_more_scenarios(scenario):
    Simulation(scenario).run()
