"""What an engine shows of itself: the block map, against tables read one by one, and counters."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from null_engine import make_engine

from octavo.block_map import BlockRun, map_blocks
from octavo.blocks import BlockPool
from octavo.sampling_params import RequestOutputKind, SamplingParams


def greedy(max_tokens, **options):
    return SamplingParams(temperature=0, max_tokens=max_tokens, detokenize=False, **options)


def one_by_one(pool, tables):
    """(state, owner, holders) of every block, each looked up by itself."""
    blocks = []
    for block in range(1, pool.num_blocks):
        holders = [index for index, table in enumerate(tables) if block in table]
        cached = block in pool._cached
        state = "used" if pool.is_used(block) else "cached" if cached else "unused"
        blocks.append((state, holders[0] if holders else -1, len(holders)))
    return blocks


def unrolled(runs):
    return [tuple(run[:3]) for run in runs for _ in range(run.num_blocks)]


@pytest.mark.parametrize("seed", range(20))
def test_a_map_says_of_each_block_what_the_tables_say(seed):
    rng = random.Random(seed)
    pool = BlockPool(rng.choice([2, 9, 40]))
    tables = []
    for _ in range(rng.randrange(5)):
        shared = rng.sample(tables[0], len(tables[0]) // 2) if tables else []
        new = pool.allocate(rng.randrange(min(6, pool.num_free + 1)))
        tables.append([0] * rng.randrange(3) + [pool.share(block) for block in shared if block])
        tables[-1] += new
    for table in tables[1::2]:
        for block in table:
            if block and rng.random() < 0.5:
                pool.register(block, bytes([block]) * 32)
        pool.release(table)
    tables[1::2] = [[] for _ in tables[1::2]]
    runs = map_blocks(pool, tables)
    assert unrolled(runs) == one_by_one(pool, tables)
    assert all(a[:3] != b[:3] for a, b in itertools.pairwise(runs))  # as long as can be


def test_runs_are_a_sequence():
    pool = BlockPool(6)
    table = pool.allocate(2)
    runs = map_blocks(pool, [table])
    assert list(runs) == [BlockRun("used", 0, 1, 2), BlockRun("unused", -1, 0, 3)]
    assert [runs[index] for index in range(len(runs))] == list(runs)
    assert list(runs[1:]) == list(runs)[1:]
    assert runs.num_blocks.dtype == np.int32


@pytest.mark.parametrize("windows", [(None,), (None, 8)])
def test_a_snapshot_of_a_busy_engine(windows):
    engine = make_engine(windows, num_cache_tokens=512, max_num_seqs=4)
    for index in range(6):
        engine.add_request(f"r{index}", [7] * 9 + [index] * 20, greedy(30))
    for _ in range(200):
        snapshot = engine.snapshot()
        check(engine, snapshot)
        if not engine.has_unfinished_requests:
            break
        engine.step()
    engine.scheduler.check_integrity()
    assert snapshot.requests == ()
    assert snapshot.stats.num_generated_tokens == 6 * 30
    assert snapshot.stats.scheduler.num_running == 0


def check(engine, snapshot):
    requests = engine.scheduler.unfinished
    assert [view.request_id for view in snapshot.requests] == [r.request_id for r in requests]
    figures = snapshot.stats.scheduler
    assert sum(view.status == "running" for view in snapshot.requests) == figures.num_running
    assert sum(view.status == "waiting" for view in snapshot.requests) == figures.num_waiting
    for group, (view, pool) in enumerate(zip(snapshot.groups, engine.scheduler.pools, strict=True)):
        tables = [request.blocks[group] for request in requests]
        assert unrolled(view.runs) == one_by_one(pool, tables)
        states = [state for state, _, _ in unrolled(view.runs)]
        counts = figures.groups[group]
        assert states.count("used") == counts.num_used
        assert states.count("cached") == counts.num_cached
        assert states.count("unused") == counts.num_unused


def test_a_shared_prefix_shows_its_first_owner_and_all_holders():
    engine = make_engine(max_num_seqs=4)
    prompt = list(range(1, 13))  # three blocks of four
    engine.add_request("a", [*prompt, 50], greedy(50))
    engine.step()
    engine.add_request("b", [*prompt, 60], greedy(50))
    engine.step()
    snapshot = engine.snapshot()
    [shared] = [run for run in snapshot.groups[0].runs if run.num_holders > 1]
    assert shared == BlockRun("used", 0, 2, 3)
    assert [view.request_id for view in snapshot.requests] == ["a", "b"]
    assert [view.num_cached_tokens for view in snapshot.requests] == [0, 12]


def test_counters_count_what_is_computed():
    engine = make_engine()
    prompt = list(range(1, 13))
    params = greedy(5, output_kind=RequestOutputKind.DELTA)
    engine.add_request("a", [*prompt, 50], params)
    while engine.has_unfinished_requests:
        engine.step()
    assert (engine.stats.num_prompt_tokens, engine.stats.num_generated_tokens) == (13, 5)
    engine.add_request("b", [*prompt, 60], params)  # the cache has the first twelve
    while engine.has_unfinished_requests:
        engine.step()
    stats = engine.stats
    assert (stats.num_prompt_tokens, stats.num_generated_tokens) == (14, 10)
    assert stats.num_steps == 10
    assert stats.step_time_s > 0
    assert stats.scheduler.num_prefix_hit_tokens == 12


def test_a_preempted_prompt_counts_as_often_as_it_is_computed():
    engine = make_engine(
        num_cache_tokens=64, max_model_len=60, max_num_seqs=3, preemption_mode="recompute"
    )
    for index in range(3):
        engine.add_request(str(index), [index + 1] * 12, greedy(24))
    while engine.has_unfinished_requests:
        engine.step()
    stats = engine.stats
    assert stats.scheduler.num_recompute_preemptions > 0
    assert stats.num_generated_tokens == 3 * 24
    assert 36 < stats.num_prompt_tokens <= 36 + 12 * stats.scheduler.num_recompute_preemptions
