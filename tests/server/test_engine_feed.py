"""The live view: its JSON, one snapshot for all who watch, and an end in every case."""

from __future__ import annotations

import asyncio
import json

import pytest
from fake_clients import FakeClient, scheduler_stats

from octavo.engine_snapshot import BlockRun, EngineSnapshot, EngineStats, GroupView, RequestView
from octavo.server.config import ServerConfig
from octavo.server.errors import ApiError
from octavo.server.monitoring import engine_feed
from octavo.server.monitoring.engine_view import encode_view
from octavo.server.served_model import ServedModel, ServedModels
from octavo.server.state import Server

pytestmark = pytest.mark.anyio

_DEADLINE_S = 30


@pytest.fixture
def engine():
    return FakeClient()


@pytest.fixture
def server(engine, monkeypatch):
    monkeypatch.setattr(engine_feed, "INTERVAL_S", 0.005)
    return Server(ServerConfig(), ServedModels([ServedModel(names=("m",), engine=engine)]))


@pytest.fixture
def feed(server):
    return server.feed_of(server.models[0])


async def next_of(watch):
    return await asyncio.wait_for(anext(watch), _DEADLINE_S)


def data_of(event):
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    return json.loads(event[6:])


def gate(engine):
    """Let the engine answer only so often as the semaphore is released."""
    snapshot, may_answer = engine.snapshot, asyncio.Semaphore(0)

    async def gated():
        await may_answer.acquire()
        return await snapshot()

    engine.snapshot = gated
    return may_answer


async def test_the_view_is_what_was_agreed_on():
    request = RequestView("req-1", "running", 5, 2, 6, 4, 1, -3, 1.23456)
    waiting = RequestView('req\u2028\n"2', "waiting", 7, 0, 0, 0, 0, 0, 0.5)
    runs = (
        BlockRun("used", 0, 1, 2),
        BlockRun("used", 0, 3, 1),
        BlockRun("cached", -1, 0, 4),
        BlockRun("unused", -1, 0, 3),
    )
    stats = EngineStats(
        scheduler_stats(
            num_waiting=1,
            num_running=2,
            num_swapped=3,
            num_recompute_preemptions=4,
            num_swap_preemptions=5,
            num_prefix_query_tokens=60,
            num_prefix_hit_tokens=7,
        ),
        num_steps=8,
        num_prompt_tokens=9,
        num_generated_tokens=10,
    )
    snapshot = EngineSnapshot(4, (request, waiting), (GroupView(10, runs), GroupView(0, ())), stats)
    text = encode_view("org/m", 12.34567, snapshot)
    assert text.isascii()
    assert b"\n" not in text
    zeros = {
        "num_output_tokens": 0,
        "num_computed_tokens": 0,
        "num_cached_tokens": 0,
        "num_preemptions": 0,
        "priority": 0,
    }
    assert json.loads(text) == {
        "model": "org/m",
        "time_s": 12.346,
        "block_size": 4,
        "stats": {
            "num_running": 2,
            "num_waiting": 1,
            "num_swapped": 3,
            "num_prompt_tokens": 9,
            "num_generated_tokens": 10,
            "num_steps": 8,
            "num_prefix_query_tokens": 60,
            "num_prefix_hit_tokens": 7,
            "num_preemptions": 9,
        },
        "requests": [
            {
                "id": "req-1",
                "status": "running",
                "num_prompt_tokens": 5,
                "num_output_tokens": 2,
                "num_computed_tokens": 6,
                "num_cached_tokens": 4,
                "num_preemptions": 1,
                "priority": -3,
                "age_s": 1.235,
            },
            {
                "id": 'req\u2028\n"2',
                "status": "waiting",
                "num_prompt_tokens": 7,
                **zeros,
                "age_s": 0.5,
            },
        ],
        "groups": [
            {
                "num_blocks": 10,
                "runs": [["r", 0, 1, 2], ["r", 0, 3, 1], ["c", -1, 0, 4], ["u", -1, 0, 3]],
            },
            {"num_blocks": 0, "runs": []},
        ],
    }


async def test_many_runs_are_put_together_from_parts():
    runs = tuple(BlockRun("used", index, 1, 1) for index in range(10_001))
    snapshot = EngineSnapshot(16, (), (GroupView(10_001, runs),), EngineStats(scheduler_stats()))
    (group,) = json.loads(encode_view("m", 0.0, snapshot))["groups"]
    assert group["runs"] == [["r", index, 1, 1] for index in range(10_001)]


async def test_many_watchers_cost_what_one_does(feed, engine):
    may_answer = gate(engine)
    watches = [feed.watch() for _ in range(50)]
    for num_calls in range(1, 5):
        may_answer.release()
        events = await asyncio.gather(*map(next_of, watches))
        assert len(set(events)) == 1
        assert len(engine.calls) == num_calls
    late = feed.watch()  # sees what the others have seen last, without asking the engine
    assert await next_of(late) == events[0]
    assert len(engine.calls) == 4
    for watch in (*watches, late):
        await watch.aclose()


async def test_nobody_asks_the_engine_when_nobody_watches(feed, engine):
    assert engine.calls == []
    watch = feed.watch()
    await next_of(watch)
    await watch.aclose()
    await watch.aclose()
    num_calls = len(engine.calls)
    await asyncio.sleep(0.05)
    assert len(engine.calls) == num_calls
    again = feed.watch()  # and not what was true then
    await next_of(again)
    assert len(engine.calls) == num_calls + 1
    await again.aclose()


async def test_who_reads_slowly_gets_the_latest_view(feed, engine):
    slow, quick = feed.watch(), feed.watch()
    for num_steps in range(1, 20):
        engine.shown.stats = EngineStats(scheduler_stats(), num_steps=num_steps)
        while data_of(await next_of(quick))["stats"]["num_steps"] < num_steps:
            pass
    assert data_of(await next_of(slow))["stats"]["num_steps"] == 19
    await slow.aclose()
    await quick.aclose()


async def test_the_number_of_watchers_is_bounded(feed):
    watches = [feed.watch() for _ in range(engine_feed.MAX_WATCHERS)]
    with pytest.raises(ApiError) as caught:
        feed.watch()
    assert (caught.value.status, caught.value.code) == (429, "too_many_watchers")
    assert "Retry-After" in caught.value.headers
    await watches.pop().aclose()
    watches.append(feed.watch())
    for watch in watches:
        await watch.aclose()


async def test_streams_end_when_the_server_drains(feed, server):
    watches = [feed.watch(), feed.watch()]
    await next_of(watches[0])
    server.is_draining = True
    for watch in watches:
        async with asyncio.timeout(_DEADLINE_S):
            [event async for event in watch]
        await watch.aclose()


async def test_a_failed_engine_is_told_and_ends_the_stream(feed, engine):
    watch = feed.watch()
    await next_of(watch)
    engine.shown.failure = "It broke."
    async with asyncio.timeout(_DEADLINE_S):
        last = [event async for event in watch][-1]
    assert last.startswith(b"event: error\ndata: ")
    assert json.loads(last.split(b"data: ")[1])["error"]["message"] == "It broke."
    await watch.aclose()
    engine.shown.failure = None
    again = feed.watch()
    assert data_of(await next_of(again))["model"] == "m"
    await again.aclose()


async def test_who_leaves_while_the_engine_is_asked_does_not_disturb_the_next(feed, engine):
    may_answer = gate(engine)
    watch = feed.watch()
    await asyncio.sleep(0.01)
    await watch.aclose()
    again = feed.watch()
    may_answer.release()
    assert data_of(await next_of(again))["model"] == "m"
    await again.aclose()
