"""Engines in a thread and in a process of their own: the same answers, errors, ends and figures."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from octavo import LLM, SamplingParams
from octavo.config import EngineConfig
from octavo.errors import (
    BackendError,
    CapacityError,
    DeviceError,
    ModelLoadError,
    QueueFullError,
    UsageError,
)
from octavo.sampling_params import RequestOutputKind
from octavo.server.engines.load import load_engine_client
from octavo.server.engines.process import EngineProcess
from octavo.server.engines.process_engine import ProcessEngine
from octavo.server.engines.thread_engine import ThreadEngine

pytestmark = pytest.mark.anyio

PLACEMENTS = ("thread", "process")
OPTIONS = {
    "device": "cpu",
    "backend": "numpy",
    "load_format": "dummy",
    "max_model_len": 1024,
    "kv_cache_memory_bytes": 1 << 24,
    "quiet": True,
}
IDS = [[5, 6, 7, 8], list(range(40, 90)), [300] * 20]
LONG = SamplingParams(
    temperature=0, max_tokens=900, ignore_eos=True, output_kind=RequestOutputKind.DELTA
)


@pytest.fixture(scope="module")
def anyio_backend():
    """One event loop for the module: a client belongs to one."""
    return "asyncio"


@pytest.fixture(scope="module")
def llm(tiny_folder):
    """What both are held against."""
    llm = LLM(str(tiny_folder), **OPTIONS)
    yield llm
    llm.close()


@pytest.fixture(scope="module", params=PLACEMENTS)
async def lasting_client(request, tiny_folder, anyio_backend):
    client = await load_engine_client(config(tiny_folder), request.param)
    yield client
    await client.close()
    with pytest.raises(BackendError, match="closed"):
        await client.submit("late", [1], LONG)


@pytest.fixture
async def client(lasting_client):
    """After each test no request is left, and no block is held."""
    yield lasting_client
    snapshot = await lasting_client.snapshot()
    assert snapshot.requests == ()
    assert [group.num_used for group in snapshot.stats.scheduler.groups] == [0]
    assert lasting_client._streams == {}
    assert lasting_client._calls == {}


def config(folder, **changes):
    return EngineConfig.from_options(str(folder), {**OPTIONS, **changes})


def params(max_tokens=12, kind=RequestOutputKind.DELTA, **options):
    return SamplingParams(
        **{"temperature": 0, "max_tokens": max_tokens, "output_kind": kind, **options}
    )


async def read(stream):
    """All outputs of a stream."""
    return [output async for output in stream]


async def ask(client, request_id, prompt, params):
    return await read(await client.submit(request_id, prompt, params))


def joined(outputs, index=0):
    """(token ids, text) of one answer, from its deltas."""
    deltas = [answer for output in outputs for answer in output.outputs if answer.index == index]
    ids = [token_id for delta in deltas for token_id in delta.token_ids]
    return ids, "".join(delta.text for delta in deltas)


def answers(llm, prompts, params):
    outputs = llm.generate(prompts, params, use_tqdm=False)
    return [(output.outputs[0].token_ids, output.outputs[0].text) for output in outputs]


@pytest.mark.parametrize("prompts", [IDS, ["Hello there", "x", "a b c"]], ids=["ids", "text"])
async def test_the_answers_are_those_of_llm(client, llm, prompts):
    asked = [ask(client, str(i), prompt, params(30)) for i, prompt in enumerate(prompts)]
    outputs = await asyncio.gather(*asked)
    assert [joined(one) for one in outputs] == answers(llm, prompts, params(30))
    for one in outputs:  # of one piece, where the reader was behind
        assert [output.finished for output in one] == [False] * (len(one) - 1) + [True]
    assert [one[0].prompt for one in outputs] == [
        prompt if isinstance(prompt, str) else None for prompt in prompts
    ]


@pytest.mark.parametrize("kind", list(RequestOutputKind))
async def test_logprobs_metrics_and_the_prompt_arrive_whole(client, llm, kind):
    asked = params(9, kind, logprobs=2, prompt_logprobs=1)
    [expected] = llm.generate([IDS[1]], asked, use_tqdm=False)
    stream = await client.submit("a", IDS[1], asked)
    outputs = await read(stream)
    logprobs = [answer.logprobs for output in outputs for answer in output.outputs]
    is_delta = kind is RequestOutputKind.DELTA
    got = [entry for part in logprobs for entry in part] if is_delta else logprobs[-1]
    assert [list(entry) for entry in got] == list(map(list, expected.outputs[0].logprobs))
    assert outputs[-1].prompt_logprobs == expected.prompt_logprobs
    assert outputs[-1].prompt_token_ids == stream.prompt_token_ids == IDS[1]
    metrics = outputs[-1].metrics
    times = [metrics.arrival_time_s, metrics.first_token_time_s, metrics.finished_time_s]
    assert times == sorted(times)


async def test_a_truncated_prompt_is_told_as_the_engine_took_it(client):
    stream = await client.submit("a", IDS[1], params(1, truncate_prompt_tokens=7))
    assert stream.prompt_token_ids == IDS[1][-7:]
    await read(stream)


async def test_several_answers_and_structured_ones(client, llm):
    several = params(8, n=3, temperature=1.0, seed=7)
    [expected] = llm.generate([IDS[0]], several, use_tqdm=False)
    outputs = await ask(client, "n", IDS[0], several)
    assert [joined(outputs, i)[0] for i in range(3)] == [a.token_ids for a in expected.outputs]
    choice = params(20, structured_outputs={"choice": ["red", "green"]})
    assert joined(await ask(client, "c", IDS[0], choice)) == answers(llm, [IDS[0]], choice)[0]


@pytest.mark.parametrize(
    ("prompt", "options", "kind", "message"),
    [
        ([], {}, UsageError, "prompt is empty"),
        ([10**6], {}, UsageError, "vocabulary"),
        ("\ud800", {}, UsageError, "lone surrogate"),
        ([1] * 2000, {}, CapacityError, "2000 tokens"),
        ([1], {"logprobs": 100}, UsageError, "max_logprobs"),
        ([1], {"structured_outputs": {"regex": "("}}, UsageError, "cannot be used"),
        ([1], {"bad_words": ["\ud800"]}, UsageError, "lone surrogate"),
    ],
)
async def test_errors_keep_their_class_and_message(client, prompt, options, kind, message):
    with pytest.raises(kind, match=message) as caught:
        await client.submit("bad", prompt, params(**options))
    assert type(caught.value) is kind
    assert client.failure is None


async def test_an_id_in_use_is_refused_and_free_again_at_once(client):
    stream = await client.submit("same", [1, 2], LONG)
    with pytest.raises(UsageError, match="already in use"):
        await client.submit("same", [3], LONG)
    stream.close()
    again = await client.submit("same", IDS[0], params(5))
    outputs = await read(again)
    assert len(joined(outputs)[0]) == 5  # and nothing of the first
    assert await read(stream) == []


async def test_closing_a_stream_frees_its_blocks_within_a_step(client):
    stream = await client.submit("a", IDS[1], LONG)
    await anext(stream)
    before = await client.snapshot()
    assert [request.request_id for request in before.requests] == ["a"]
    stream.close()
    stream.close()
    after = await client.snapshot()
    assert after.requests == ()
    assert after.stats.scheduler.groups[0].num_used == 0
    later = await client.snapshot()  # what is not there any more needs no steps
    assert later.stats.num_steps == after.stats.num_steps > 0


async def test_cancelling_whoever_submits_ends_the_request(client):
    waiting = asyncio.create_task(client.submit("a", IDS[1], LONG))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_reader_that_waits_is_woken_when_the_stream_is_closed(client):
    stream = await client.submit("a", [1], params(900, RequestOutputKind.FINAL_ONLY))
    reading = asyncio.create_task(read(stream))
    await asyncio.sleep(0.01)
    stream.close()
    assert await reading == []


async def test_what_a_slow_reader_leaves_is_merged(client, llm):
    stream = await client.submit("slow", IDS[0], LONG)
    while client.stats.scheduler.num_running or not stream._has_ended:
        await asyncio.sleep(0.01)
        assert len(stream._waiting) <= 65
    outputs = await read(stream)
    assert len(outputs) == 1
    assert joined(outputs) == answers(llm, [IDS[0]], LONG)[0]


async def test_a_snapshot_agrees_with_the_figures(client):
    prompts = [IDS[1], [*IDS[1], 3], IDS[2]]
    first = await client.submit("first", prompts[0], LONG)
    await anext(first)
    others = [await client.submit(str(i), prompt, LONG) for i, prompt in enumerate(prompts[1:])]
    for stream in others:
        await anext(stream)
    snapshot = await client.snapshot()
    [group], figures = snapshot.groups, snapshot.stats.scheduler.groups[0]
    counts = dict.fromkeys(("unused", "cached", "used"), 0)
    for run in group.runs:
        counts[run.state] += run.num_blocks
        assert (run.owner >= 0) == (run.state == "used") == (run.num_holders > 0)
    assert counts == {
        "unused": figures.num_unused,
        "cached": figures.num_cached,
        "used": figures.num_used,
    }
    assert sum(counts.values()) == group.num_blocks == client.info.num_blocks[0]
    # Three whole blocks of 16 of the first prompt's 50 tokens are shared by two requests.
    shared = [run for run in group.runs if run.num_holders == 2]
    assert sum(run.num_blocks for run in shared) == 3
    assert {snapshot.requests[run.owner].request_id for run in shared} == {"first"}
    assert {view.request_id for view in snapshot.requests} == {"first", "0", "1"}
    for stream in (first, *others):
        stream.close()


async def test_forgetting_prefixes_tells_how_many_blocks_held_one(client):
    await client.reset_prefix_cache()
    await ask(client, "a", IDS[1], params(2))  # 51 tokens computed: three full blocks
    assert await client.reset_prefix_cache() == 3
    assert await client.reset_prefix_cache() == 0


@pytest.mark.parametrize("level", [1, 2])
async def test_asleep_it_refuses_and_awake_it_answers_as_before(client, llm, level):
    stream = await client.submit("a", [1], LONG)
    await anext(stream)
    await client.sleep(level)
    assert client.is_sleeping
    assert "put to sleep" in (await read(stream))[-1].error
    with pytest.raises(BackendError, match="sleeps"):
        await client.submit("b", [1], LONG)
    await client.wake_up()
    assert not client.is_sleeping
    assert joined(await ask(client, "c", IDS[1], params(12))) == answers(llm, IDS, params(12))[1]


async def test_a_level_that_does_not_exist_is_refused(client):
    with pytest.raises(UsageError, match="level=3"):
        await client.sleep(3)
    assert not client.is_sleeping


@pytest.mark.parametrize("placement", PLACEMENTS)
async def test_a_full_queue_refuses(tiny_folder, placement):
    small = config(tiny_folder, max_num_seqs=1, max_num_waiting=1, max_num_batched_tokens=64)
    client = await load_engine_client(small, placement)
    try:
        running = await client.submit("running", [1], LONG)
        await anext(running)
        await client.submit("waiting", [2], LONG)
        with pytest.raises(QueueFullError, match="max_num_waiting"):
            await client.submit("refused", [3], LONG)
    finally:
        await client.close()
    assert [output.finished for output in await read(running)][-1]


@pytest.mark.parametrize("placement", PLACEMENTS)
async def test_what_cannot_be_loaded_says_why(tiny_folder, placement):
    with pytest.raises(ModelLoadError, match="no file or folder"):
        await load_engine_client(config(tiny_folder / "absent"), placement)
    with pytest.raises(DeviceError, match="warp"):
        await load_engine_client(config(tiny_folder, device="warp", backend=None), placement)


async def test_a_fault_of_octavo_itself_ends_requests_and_not_the_engine(loaded, monkeypatch):
    client = ThreadEngine.from_loaded(loaded)
    with monkeypatch.context() as patch:
        patch.setattr(type(loaded.engine.scheduler), "schedule", _broken)
        outputs = await ask(client, "a", [1], LONG)
    assert "This is a bug" in outputs[-1].error
    assert len(joined(await ask(client, "b", [1], params(3, ignore_eos=True)))[0]) == 3
    loaded.engine.scheduler.check_integrity()
    await client.close()


async def test_a_thread_that_dies_tells_everybody(loaded):
    client = ThreadEngine.from_loaded(loaded)
    stream = await client.submit("a", [1], LONG)
    client._desk._loop.post(_broken)
    with pytest.raises(BackendError, match=r"thread has died: ZeroDivisionError"):
        await read(stream)
    with pytest.raises(BackendError, match="died"):
        await client.submit("late", [1], LONG)
    await client.close()


def _broken(*_args):
    raise ZeroDivisionError


async def test_a_killed_process_ends_all_streams_with_the_reason(tiny_folder):
    client = await load_engine_client(config(tiny_folder), "process")
    streams = [await client.submit(str(index), [index + 1], LONG) for index in range(3)]
    os.kill(client.process.process_id, signal.SIGKILL)
    for stream in streams:
        with pytest.raises(BackendError, match="SIGKILL"):
            await read(stream)
    assert "SIGKILL" in client.failure
    with pytest.raises(BackendError, match="SIGKILL"):
        await client.submit("late", [1], LONG)
    await client.close()


async def test_a_process_killed_while_it_loads_says_so(tiny_folder):
    process = EngineProcess(config(tiny_folder))
    os.kill(process.process_id, signal.SIGKILL)
    with pytest.raises(BackendError, match=r"SIGKILL.*loading"):
        ProcessEngine.load(config(tiny_folder), process)


async def test_signals_to_the_whole_group_do_not_end_the_engine(tiny_folder):
    client = await load_engine_client(config(tiny_folder), "process")
    os.kill(client.process.process_id, signal.SIGINT)
    os.kill(client.process.process_id, signal.SIGTERM)
    assert len(joined(await ask(client, "a", [1], params(5, ignore_eos=True)))[0]) == 5
    assert os.getpgid(client.process.process_id) != os.getpgid(0)
    await client.close()


def test_no_process_is_left_when_its_client_is_killed(tiny_folder):
    script = f"""
        import asyncio, sys
        from octavo.config import EngineConfig
        from octavo.server.engines.load import load_engine_client
        async def main():
            config = EngineConfig.from_options({str(tiny_folder)!r}, {OPTIONS!r})
            client = await load_engine_client(config, "process")
            print(client.process.process_id, flush=True)
            await asyncio.sleep(60)
        asyncio.run(main())
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        process_id = int(parent.stdout.readline())
        parent.kill()
    end_s = time.monotonic() + 20
    while is_running(process_id) and time.monotonic() < end_s:
        time.sleep(0.02)
    assert not is_running(process_id)


def is_running(process_id):
    """Whether it is there and no zombie, which nobody may be there to reap."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process_id)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()[:1] not in ("", "Z")


async def test_several_fake_devices_each_have_a_process(tiny_folder, monkeypatch):
    monkeypatch.setenv("OCTAVO_FAKE_DEVICES", "2")
    clients = [
        await load_engine_client(
            config(
                tiny_folder,
                device=f"fake:{index}",
                backend="fake",
                options={"compute": False, "faults": ["step:raise@2"]},
            ),
            "process",
        )
        for index in range(2)
    ]
    assert [client.info.device for client in clients] == ["fake:0", "fake:1"]
    outputs = await asyncio.gather(*(ask(c, "a", IDS[0], LONG) for c in clients))
    assert joined(outputs[0]) == joined(outputs[1])
    assert [client.stats.num_failed_steps for client in clients] == [1, 1]
    for client in clients:
        await client.close()
