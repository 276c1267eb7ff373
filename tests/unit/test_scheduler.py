"""Who runs when: budgets, order, preemption, prefix hits, forks, refusals."""

from __future__ import annotations

import pytest

from octavo.errors import CapacityError, QueueFullError, UsageError
from octavo.request import FinishReason, Request, RequestStatus
from octavo.scheduler import GroupConfig, PreemptionCosts, Scheduler, SchedulerConfig


def make_scheduler(num_blocks=100, *, groups=None, costs=None, **settings):
    settings = {"max_model_len": 10_000, "block_size": 4, "max_num_seqs": 8, **settings}
    settings.setdefault("max_num_batched_tokens", 64)
    return Scheduler(SchedulerConfig(**settings), groups or [GroupConfig(num_blocks)], costs)


def make_request(request_id, num_prompt_tokens, max_tokens=100, **settings):
    """Prompts of different ids share no prefix."""
    first = sum(map(ord, request_id)) * 1000
    prompt = list(range(first, first + num_prompt_tokens))
    return Request(request_id, prompt, max_tokens, **settings)


def step(scheduler):
    """One step; everybody who reaches the end of their tokens samples a 7."""
    schedule = scheduler.schedule()
    scheduler.commit(schedule)
    for request in schedule.requests:
        if request.row >= 0 and request.num_computed_tokens == request.num_tokens:
            request.output_token_ids.append(7)
            if request.num_output_tokens == request.max_tokens:
                scheduler.finish(request, FinishReason.LENGTH)
    scheduler.check_integrity()
    return schedule


def run_to_end(scheduler, max_steps=1000):
    for _ in range(max_steps):
        if not scheduler.has_unfinished:
            return
        assert step(scheduler).requests
    pytest.fail(f"still not done: {scheduler.stats}")


def plan_of(schedule):
    names = [request.request_id for request in schedule.requests]
    return dict(zip(names, schedule.num_tokens, strict=True))


# The life of one request


def test_one_request_from_prompt_to_end():
    scheduler = make_scheduler(max_num_batched_tokens=8)
    request = make_request("a", 10, max_tokens=3)
    scheduler.add(request)
    assert request.status is RequestStatus.WAITING
    assert (scheduler.num_waiting, scheduler.num_running) == (1, 0)

    first = step(scheduler)
    assert (plan_of(first), first.num_decodes) == ({"a": 8}, 0)
    assert first.new_requests == [request]
    assert first.table_updates == [(request.row, 0, 0, request.blocks[0])]
    assert request.status is RequestStatus.RUNNING

    second = step(scheduler)
    assert plan_of(second) == {"a": 2}
    assert second.new_requests == []
    assert second.table_updates == [(request.row, 0, 2, request.blocks[0][2:])]

    third = step(scheduler)
    assert (plan_of(third), third.num_decodes) == ({"a": 1}, 1)
    assert third.table_updates == []
    step(scheduler)
    assert request.output_token_ids == [7, 7, 7]
    assert (request.status, request.finish_reason) == (RequestStatus.FINISHED, "length")
    assert (request.row, request.blocks) == (-1, [[]])
    assert not scheduler.has_unfinished
    assert scheduler.schedule().is_empty


def test_rows_are_unique_low_and_reused():
    scheduler = make_scheduler(max_num_seqs=3)
    requests = [make_request(name, 4) for name in "abcd"]
    for request in requests:
        scheduler.add(request)
    step(scheduler)
    assert [request.row for request in requests] == [0, 1, 2, -1]
    scheduler.abort("b")
    assert step(scheduler).new_requests == [requests[3]]
    assert requests[3].row == 1


def test_max_chunk_tokens_limits_each_step():
    scheduler = make_scheduler()
    scheduler.add(make_request("a", 10, max_chunk_tokens=4))
    assert [plan_of(step(scheduler)) for _ in range(3)] == [{"a": 4}, {"a": 4}, {"a": 2}]


def test_without_chunked_prefill_a_prompt_runs_whole_or_waits():
    scheduler = make_scheduler(
        max_model_len=30, max_num_batched_tokens=30, enable_chunked_prefill=False
    )
    scheduler.add(make_request("a", 20, 5))
    scheduler.add(make_request("b", 20, 5))
    assert plan_of(step(scheduler)) == {"a": 20}
    assert plan_of(step(scheduler)) == {"a": 1, "b": 20}


# Sharing a step


@pytest.mark.parametrize("others", [["vast"], []])
def test_decodes_run_in_every_step_beside_huge_prompts(others):
    scheduler = make_scheduler(num_blocks=1000, max_num_batched_tokens=16)
    for name in ("huge", *others):
        scheduler.add(make_request(name, 900))
    step(scheduler)
    scheduler.add(make_request("a", 1))
    step(scheduler)
    for _ in range(50):
        plan = plan_of(step(scheduler))
        assert plan["a"] == 1
        assert sum(plan.values()) == 16


def test_a_huge_prompt_does_not_hold_up_short_ones():
    scheduler = make_scheduler(num_blocks=1000)
    huge = make_request("huge", 3000)
    scheduler.add(huge)
    step(scheduler)
    short = make_request("short", 20)
    scheduler.add(short)
    step(scheduler)
    assert short.num_output_tokens == 1
    assert huge.num_computed_tokens == 64 + 44


def test_tokens_that_nobody_can_use_go_to_the_chunk_that_was_cut():
    scheduler = make_scheduler(num_blocks=1000, max_num_seqs=1)
    scheduler.add(make_request("huge", 3000))
    scheduler.add(make_request("no row", 20))
    assert plan_of(step(scheduler)) == {"huge": 64}
    assert plan_of(step(scheduler)) == {"huge": 64}


def test_fcfs_ignores_priorities():
    scheduler = make_scheduler(max_num_seqs=1)
    for name, priority in (("a", 5), ("b", 0)):
        scheduler.add(make_request(name, 4, priority=priority))
    assert list(plan_of(step(scheduler))) == ["a"]


def test_priority_then_arrival():
    scheduler = make_scheduler(max_num_seqs=2, policy="priority")
    for name, priority in (("late", 1), ("a", 0), ("b", 0)):
        scheduler.add(make_request(name, 4, priority=priority))
    assert list(plan_of(step(scheduler))) == ["a", "b"]


def test_a_request_that_does_not_fit_now_is_not_overtaken():
    scheduler = make_scheduler(num_blocks=11)
    scheduler.add(make_request("a", 24, 5))
    scheduler.add(make_request("b", 24, 5))
    scheduler.add(make_request("c", 4, 5))
    assert list(plan_of(step(scheduler))) == ["a"]
    run_to_end(scheduler)


def test_speculative_tokens_run_as_one_decode():
    scheduler = make_scheduler()
    request = make_request("a", 6)
    scheduler.add(request)
    step(scheduler)
    request.output_token_ids += [8, 9, 9]
    schedule = scheduler.schedule()
    assert (plan_of(schedule), schedule.num_decodes) == ({"a": 4}, 1)
    scheduler.commit(schedule)
    assert request.num_computed_tokens == 10
    request.output_token_ids[2:] = [5]  # 8 was right, 9 was not
    scheduler.rollback(request, 2)
    assert request.num_computed_tokens == 8
    scheduler.check_integrity()
    assert plan_of(step(scheduler)) == {"a": 1}


def test_what_replaces_rejected_tokens_is_cached():
    scheduler = make_scheduler()
    request = make_request("a", 6)
    scheduler.add(request)
    step(scheduler)
    request.output_token_ids += [9, 9, 9]
    scheduler.commit(scheduler.schedule())
    request.output_token_ids[1:] = [5]
    scheduler.rollback(request, 3)
    for _ in range(6):
        step(scheduler)
    again = make_request("a", 6)
    again.request_id = "b"
    again.prompt_token_ids += request.output_token_ids
    scheduler.add(again)
    step(scheduler)
    assert request.output_token_ids[:2] == [7, 5]
    assert again.num_cached_tokens == request.num_computed_tokens // 4 * 4 == 12


def test_drafts_cannot_keep_a_prefill_from_advancing():
    scheduler = make_scheduler(num_blocks=10, max_num_batched_tokens=8)
    first, second = make_request("a", 20, 10), make_request("b", 3, 10, max_chunk_tokens=2)
    scheduler.add(first)
    scheduler.add(second)
    for _ in range(2):
        step(scheduler)
    assert first.is_prefilling
    assert not second.is_prefilling
    second.output_token_ids += [9] * 8
    assert plan_of(scheduler.schedule())["a"] >= 1


# Preemption


def grow_until_preempted(scheduler, max_steps=100):
    for _ in range(max_steps):
        running = scheduler.num_running
        schedule = step(scheduler)
        if scheduler.num_running < running and scheduler.num_waiting + scheduler.num_swapped:
            return schedule
    pytest.fail("nobody was preempted")


def test_the_latest_of_the_lowest_priority_is_preempted_and_returns_first():
    scheduler = make_scheduler(num_blocks=10, policy="priority")
    requests = [
        make_request(name, 8, 24, priority=priority)
        for name, priority in (("a", 0), ("b", 1), ("c", 1))
    ]
    for request in requests:
        scheduler.add(request)
    grow_until_preempted(scheduler)
    assert [request.num_preemptions for request in requests] == [0, 0, 1]
    assert requests[2].status is RequestStatus.WAITING
    scheduler.add(make_request("d", 4, 4, priority=1))
    run_to_end(scheduler)
    assert [request.num_output_tokens for request in requests] == [24] * 3


def test_recomputation_starts_from_what_the_prefix_cache_kept():
    scheduler = make_scheduler(num_blocks=14)
    first, second = make_request("a", 20, 30), make_request("b", 20, 8)
    scheduler.add(first)
    scheduler.add(second)
    grow_until_preempted(scheduler)
    assert (second.num_computed_tokens, second.blocks) == (0, [[]])
    num_tokens_before = second.num_tokens
    scheduler.abort("a")
    schedule = step(scheduler)
    assert second.num_tokens == num_tokens_before + 1
    assert plan_of(schedule)["b"] < num_tokens_before
    assert schedule.num_decodes == 0
    assert schedule.swap_in == [[]]
    assert scheduler.stats.num_recompute_preemptions == 1
    run_to_end(scheduler)


def test_the_last_one_stands_still_when_blocks_run_out():
    scheduler = make_scheduler(num_blocks=8)
    first, last = make_request("a", 12, 10), make_request("b", 12, 10)
    scheduler.add(first)
    scheduler.add(last)
    assert plan_of(step(scheduler)) == {"a": 12, "b": 12}
    assert plan_of(step(scheduler)) == {"a": 1}
    assert (last.status, last.num_preemptions) == (RequestStatus.RUNNING, 0)
    run_to_end(scheduler)


def test_swapping_keeps_what_was_computed():
    scheduler = make_scheduler(groups=[GroupConfig(12, 20)], preemption_mode="swap")
    first, second = make_request("a", 16, 28), make_request("b", 16, 12)
    scheduler.add(first)
    scheduler.add(second)
    table = None
    while second.status is not RequestStatus.SWAPPED:
        table = list(second.blocks[0])
        schedule = step(scheduler)
    assert schedule.requests == [first]
    num_computed_tokens = second.num_computed_tokens
    [swapped_out] = schedule.swap_out
    assert [device for device, _ in swapped_out] == table[: -(-num_computed_tokens // 4)]
    assert scheduler.stats.groups[0].num_host_used == len(swapped_out)
    scheduler.abort("a")
    schedule = step(scheduler)
    [swapped_in] = schedule.swap_in
    assert [host for host, _ in swapped_in] == [host for _, host in swapped_out]
    assert [device for _, device in swapped_in] == second.blocks[0][: len(swapped_in)]
    assert (plan_of(schedule), schedule.num_decodes) == ({"b": 1}, 1)
    assert schedule.new_requests == [second]
    assert second.num_computed_tokens == num_computed_tokens + 1
    assert scheduler.stats.groups[0].num_host_used == 0
    run_to_end(scheduler)


@pytest.mark.parametrize(
    ("costs", "num_host_blocks", "status"),
    [
        (PreemptionCosts(1.0, 0.1), 20, RequestStatus.SWAPPED),
        (PreemptionCosts(1.0, 10.0), 20, RequestStatus.WAITING),
        (PreemptionCosts(1.0, 0.1), 2, RequestStatus.WAITING),  # no room on the host
        (None, 20, RequestStatus.WAITING),
    ],
)
def test_preemption_takes_the_cheaper_way(costs, num_host_blocks, status):
    scheduler = make_scheduler(groups=[GroupConfig(12, num_host_blocks)], costs=costs)
    victim = make_request("b", 16, 12)
    scheduler.add(make_request("a", 16, 28))
    scheduler.add(victim)
    grow_until_preempted(scheduler)
    assert victim.status is status
    run_to_end(scheduler)


def test_a_source_of_a_copy_is_not_handed_out_in_the_same_step():
    """One block is free, and two parents share their tails with children of low priority.

    The first parent takes the free block for its copy. The second preempts the first's child; the
    block that child held is the source of the pending copy and must not become a target.
    """
    scheduler = make_scheduler(num_blocks=4, policy="priority")
    second = make_request("b", 2, 6, priority=1)
    first = make_request("a", 2, 6, priority=0)
    for parent in (second, first):
        scheduler.add(parent)
    step(scheduler)
    for parent in (second, first):
        assert scheduler.fork(parent, fork_of(parent, parent.request_id + ".1", 9, priority=5))
    source = first.blocks[0][0]
    schedule = step(scheduler)
    assert schedule.requests == [first, second]
    assert schedule.copies == [[(source, first.blocks[0][0])]]
    assert second.blocks[0][0] not in (source, first.blocks[0][0])
    run_to_end(scheduler)


# The prefix cache


def test_a_second_prompt_skips_what_the_first_computed():
    scheduler = make_scheduler()
    first, second = make_request("a", 10, 1), make_request("a", 10, 1)
    second.request_id = "b"
    scheduler.add(first)
    run_to_end(scheduler)
    scheduler.add(second)
    assert plan_of(step(scheduler)) == {"b": 2}
    assert (first.num_cached_tokens, second.num_cached_tokens) == (0, 8)
    stats = scheduler.stats
    assert (stats.num_prefix_query_tokens, stats.num_prefix_hit_tokens) == (20, 8)


def test_a_hit_leaves_a_token_to_compute():
    scheduler = make_scheduler()
    for name in ("a", "b"):
        request = make_request("a", 8, 1)
        request.request_id = name
        scheduler.add(request)
        run_to_end(scheduler)
    assert request.num_cached_tokens == 4


def test_a_block_is_found_only_once_it_is_computed():
    scheduler = make_scheduler(num_blocks=20, max_num_batched_tokens=10)
    scheduler.add(make_request("a", 30, 1))
    step(scheduler)
    scheduler.abort("a")
    again = make_request("a", 30, 1)
    scheduler.add(again)
    step(scheduler)
    assert again.num_cached_tokens == 8


def test_running_requests_share_full_blocks():
    scheduler = make_scheduler()
    first, second = make_request("a", 10), make_request("a", 13)
    second.request_id = "b"
    scheduler.add(first)
    step(scheduler)
    scheduler.add(second)
    step(scheduler)
    assert second.blocks[0][:2] == first.blocks[0][:2]
    assert second.blocks[0][2] != first.blocks[0][2]
    assert scheduler.stats.groups[0].num_used == 5


@pytest.mark.parametrize(
    ("scheduler_settings", "request_settings"),
    [
        ({}, {"cache_salt": "other"}),
        ({}, {"use_prefix_cache": False}),
        ({"enable_prefix_caching": False}, {}),
    ],
)
def test_no_hit_across_salts_or_where_it_is_switched_off(scheduler_settings, request_settings):
    scheduler = make_scheduler(**scheduler_settings)
    scheduler.add(make_request("a", 10, 1))
    run_to_end(scheduler)
    second = make_request("a", 10, 1, **request_settings)
    scheduler.add(second)
    assert plan_of(step(scheduler)) == {"a": 10}


def test_equal_prompts_in_one_step_are_both_computed():
    scheduler = make_scheduler()
    for name in ("a", "b"):
        request = make_request("a", 10, 2)
        request.request_id = name
        scheduler.add(request)
    assert plan_of(step(scheduler)) == {"a": 10, "b": 10}
    run_to_end(scheduler)
    assert scheduler.stats.groups[0].num_cached == 2


def test_resetting_the_prefix_cache():
    scheduler = make_scheduler()
    scheduler.add(make_request("a", 10, 1))
    run_to_end(scheduler)
    assert scheduler.stats.groups[0].num_cached == 2
    assert scheduler.reset_prefix_cache() == 2
    assert scheduler.stats.groups[0].num_cached == 0
    scheduler.add(make_request("a", 10, 1))
    assert plan_of(step(scheduler)) == {"a": 10}


# Sliding groups


def test_a_sliding_group_holds_its_window_only():
    groups = [GroupConfig(100), GroupConfig(6, window=9)]
    scheduler = make_scheduler(groups=groups)
    request = make_request("a", 30, 200)
    scheduler.add(request)
    run = [step(scheduler) for _ in range(100)]
    assert all(schedule.requests for schedule in run)
    full, sliding = request.blocks
    assert len(full) == len(sliding)
    first_visible = (request.num_computed_tokens - 1) - 9 + 1
    assert all(sliding[first_visible // 4 :])
    assert sum(map(bool, sliding)) <= 3
    assert sum(map(bool, full)) == len(full)


def test_a_sliding_group_needs_only_its_window_for_a_hit():
    groups = [GroupConfig(100), GroupConfig(13, window=5)]
    scheduler = make_scheduler(groups=groups)
    scheduler.add(make_request("a", 40, 1))
    run_to_end(scheduler)
    again = make_request("a", 44, 1)
    scheduler.add(again)
    assert plan_of(step(scheduler)) == {"a": 4}
    assert again.num_cached_tokens == 40


# Forks


def fork_of(parent, name, *output_token_ids, **settings):
    return Request(
        name,
        parent.prompt_token_ids,
        parent.max_tokens,
        output_token_ids=list(output_token_ids),
        **settings,
    )


def test_a_fork_shares_blocks_and_copies_the_one_that_is_written():
    scheduler = make_scheduler()
    parent = make_request("a", 6)
    scheduler.add(parent)
    step(scheduler)
    child = fork_of(parent, "b", 9)
    assert scheduler.fork(parent, child)
    assert child.blocks == parent.blocks
    shared = list(parent.blocks[0])
    schedule = step(scheduler)
    assert schedule.new_requests == [child]
    assert plan_of(schedule) == {"a": 1, "b": 1}
    assert schedule.copies == [[(shared[1], parent.blocks[0][1])]]
    assert child.blocks[0] == shared
    assert (child.row, 0, 0, child.blocks[0]) in schedule.table_updates
    assert (parent.row, 0, 1, parent.blocks[0][1:]) in schedule.table_updates
    assert step(scheduler).copies == [[]]


def test_a_fork_at_a_block_boundary_copies_nothing():
    scheduler = make_scheduler()
    parent = make_request("a", 8)
    scheduler.add(parent)
    step(scheduler)
    child = fork_of(parent, "b", 9)
    scheduler.fork(parent, child)
    assert step(scheduler).copies == [[]]
    assert parent.blocks[0][:2] == child.blocks[0][:2]
    assert parent.blocks[0][2] != child.blocks[0][2]


def test_a_fork_without_a_row_waits_in_front():
    scheduler = make_scheduler(max_num_seqs=1)
    parent, other = make_request("a", 8, 3), make_request("z", 8, 3)
    scheduler.add(parent)
    scheduler.add(other)
    step(scheduler)
    child = fork_of(parent, "b", 9)
    assert not scheduler.fork(parent, child)
    assert child.status is RequestStatus.WAITING
    scheduler.abort("a")
    assert plan_of(step(scheduler)) == {"b": 1}  # nine tokens, eight of them cached


@pytest.mark.parametrize("settings", [{"cache_salt": "other"}, {"prompt_token_ids": [1] * 6}])
def test_a_fork_with_other_content_is_refused(settings):
    scheduler = make_scheduler()
    parent = make_request("a", 6)
    scheduler.add(parent)
    step(scheduler)
    child = fork_of(parent, "b", 9)
    for name, value in settings.items():
        setattr(child, name, value)
    with pytest.raises(ValueError, match="cannot share"):
        scheduler.fork(parent, child)
    scheduler.check_integrity()
    assert scheduler.num_running == 1


def test_rolling_back_into_a_shared_block_copies_it():
    scheduler = make_scheduler()
    parent = make_request("a", 6)
    scheduler.add(parent)
    step(scheduler)
    parent.output_token_ids.append(8)
    schedule = scheduler.schedule()
    scheduler.commit(schedule)  # block 1 is full now and in the prefix cache
    other = make_request("a", 9)
    other.request_id = "b"
    other.prompt_token_ids[6:] = [7, 8, 1]
    scheduler.add(other)
    scheduler.rollback(parent, 1)
    parent.output_token_ids[1:] = [5]
    stranger = scheduler.schedule()
    assert stranger.copies == [[]]
    assert other.blocks[0][1] != parent.blocks[0][1], "the content has changed"
    scheduler.check_integrity()


def test_rollback_refuses_more_than_there_is():
    scheduler = make_scheduler(groups=[GroupConfig(100), GroupConfig(100, window=5)])
    request = make_request("a", 20)
    scheduler.add(request)
    for too_early in (0, 1):
        with pytest.raises(ValueError, match="cannot take back"):
            scheduler.rollback(request, too_early + 1)
    step(scheduler)
    step(scheduler)
    with pytest.raises(ValueError, match="cannot take back 30 of the 21"):
        scheduler.rollback(request, 30)
    with pytest.raises(ValueError, match="fell out of window=5"):
        scheduler.rollback(request, 15)
    scheduler.check_integrity()


# Leaving early


@pytest.mark.parametrize("status", list(RequestStatus)[:3])
def test_abort_in_any_state_frees_everything(status):
    scheduler = make_scheduler(groups=[GroupConfig(12, 20)], preemption_mode="swap")
    first, second = make_request("a", 16, 28), make_request("b", 16, 12)
    scheduler.add(first)
    scheduler.add(second)
    for _ in range(100):
        if second.status is status:
            break
        step(scheduler)
    assert second.status is status
    assert scheduler.abort("b") is second
    scheduler.check_integrity()
    assert (second.status, second.finish_reason) == (RequestStatus.FINISHED, "abort")
    assert scheduler.stats.groups[0].num_host_used == 0
    assert scheduler.abort("b") is None
    with pytest.raises(ValueError, match="is not here: it is finished"):
        scheduler.finish(second, FinishReason.STOP)
    scheduler.abort("a")
    assert scheduler.stats.groups[0].num_used == 0
    assert not scheduler.has_unfinished


def test_a_step_under_way_ignores_who_left():
    scheduler = make_scheduler()
    leaver, stayer = make_request("a", 8), make_request("b", 8)
    scheduler.add(leaver)
    scheduler.add(stayer)
    schedule = scheduler.schedule()
    scheduler.abort("a")
    scheduler.commit(schedule)
    scheduler.check_integrity()
    assert (leaver.num_computed_tokens, stayer.num_computed_tokens) == (0, 8)
    assert scheduler.stats.groups[0].num_cached == 0


def test_nothing_remains_of_many_requests():
    scheduler = make_scheduler(num_blocks=20, groups=[GroupConfig(20, 5), GroupConfig(9, 5, 6)])
    for number in range(100):
        scheduler.add(make_request(f"r{number}", number % 17 + 1, number % 23 + 1))
    run_to_end(scheduler, 10_000)
    assert not scheduler._roster.by_id
    assert not scheduler._roster.new_requests
    for pool in scheduler._tables.pools:
        assert len(pool._blocks_by_hash) <= pool.num_usable


# Refusals


def test_a_request_that_can_never_fit_is_refused_with_the_arithmetic():
    scheduler = make_scheduler(groups=[GroupConfig(11), GroupConfig(4, window=16)])
    with pytest.raises(CapacityError) as error:
        scheduler.add(make_request("a", 30, 12))
    for part in (
        "prompt 30 + max_tokens 12 = 42 tokens",
        "41 slots",
        "group 0 needs 11 blocks of 4 tokens and has 10",
        "group 1 (window 16) needs 5 blocks of 4 tokens and has 3",
        "Lower max_tokens, shorten the prompt, or give the cache more memory",
    ):
        assert part in str(error.value)
    assert not scheduler.has_unfinished


@pytest.mark.parametrize("window", [None, 1, 4, 5, 6, 9])
@pytest.mark.parametrize("is_chunked", [True, False])
def test_the_largest_request_that_is_taken_runs_alone(window, is_chunked):
    """And one block less is too little, for a request which is held as tightly as it can be."""
    scheduler = None
    for num_blocks in range(2, 20):
        scheduler = make_scheduler(
            groups=[GroupConfig(num_blocks, window=window)],
            max_model_len=60,
            enable_chunked_prefill=is_chunked,
        )
        try:
            scheduler.add(make_request("a", 31, 16))
        except CapacityError:
            continue
        break
    run_to_end(scheduler)
    if window is None or not is_chunked:
        assert num_blocks == 1 + 12  # 46 slots
    else:
        assert num_blocks == 1 + -(-(window - 1) // 4) + 1


def test_longer_than_the_model_is_refused():
    scheduler = make_scheduler(max_model_len=50)
    with pytest.raises(CapacityError, match=r"30 \+ max_tokens 21 = 51 .* max_model_len is 50"):
        scheduler.add(make_request("a", 30, 21))


def test_a_full_queue_refuses():
    scheduler = make_scheduler(max_num_waiting=2, max_num_seqs=1)
    for name in "ab":
        scheduler.add(make_request(name, 4))
    with pytest.raises(QueueFullError, match=r"2 requests wait .* raise max_num_waiting"):
        scheduler.add(make_request("c", 4))
    step(scheduler)
    scheduler.add(make_request("c", 4))


def test_unusable_requests_are_refused_before_anything_changes():
    scheduler = make_scheduler()
    request = make_request("a", 4)
    scheduler.add(request)
    unusable = {
        "in use": make_request("a", 4),
        "empty prompt": make_request("b", 0),
        "max_chunk_tokens=0": make_request("c", 4, max_chunk_tokens=0),
        "cache_salt": make_request("d", 4, cache_salt=object()),
    }
    for complaint, bad in unusable.items():
        with pytest.raises(UsageError, match=complaint):
            scheduler.add(bad)
    scheduler.abort("a")
    with pytest.raises(UsageError, match="scheduled before"):
        scheduler.add(request)
    assert not scheduler.has_unfinished
    scheduler.check_integrity()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"max_num_seqs": 0}, "max_num_seqs=0 must be at least 1"),
        ({"max_num_waiting": 0}, "max_num_waiting=0"),
        ({"policy": "prority"}, "did you mean 'priority'"),
        ({"preemption_mode": "drop"}, "auto, recompute, swap"),
        ({"max_num_batched_tokens": 7}, "every running request needs a token"),
        ({"enable_chunked_prefill": False}, "whole context must fit one step"),
    ],
)
def test_unusable_settings_are_refused(settings, complaint):
    with pytest.raises(UsageError, match=complaint):
        make_scheduler(**settings)


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: GroupConfig(1), "at least 2 blocks"),
        (lambda: GroupConfig(2, -1), "must not be negative"),
        (lambda: GroupConfig(2, window=0), "window=0"),
        (lambda: Scheduler(SchedulerConfig(max_model_len=10), []), "at least one KV group"),
        (lambda: make_scheduler(preemption_mode="swap"), "needs host blocks"),
    ],
)
def test_unusable_groups_are_refused(build, complaint):
    with pytest.raises(UsageError, match=complaint):
        build()


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda s, r: s._roster.free_rows.append(r.row), "rows"),
        (lambda s, r: setattr(r, "row", -1), "row"),
        (lambda s, r: setattr(r, "status", RequestStatus.WAITING), "in the list of"),
        (lambda s, r: s._roster.by_id.clear(), "unfinished"),
        (lambda s, r: setattr(r, "num_computed_tokens", 99), "num_slots"),
        (lambda s, r: setattr(r, "writable_tokens", 99), "writable_tokens"),
        (lambda s, r: r.blocks[0].pop(), "references"),
        (lambda s, r: r.window_starts.__setitem__(0, 1), "start=1"),
    ],
)
def test_integrity_check_finds_damage(break_it, complaint):
    scheduler = make_scheduler()
    request = make_request("a", 10)
    scheduler.add(request)
    step(scheduler)
    break_it(scheduler, request)
    with pytest.raises(AssertionError, match=complaint):
        scheduler.check_integrity()
