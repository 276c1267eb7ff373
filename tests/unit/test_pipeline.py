"""Steps launched one behind the other: the same answers, in fewer waits, whatever ends or fails."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest

from octavo import LLM, SamplingParams
from octavo.errors import RequestFailedError
from octavo.runner import Runner
from octavo.testing.tiny_models import TINY_MODELS

ASYNCHRONOUS = {"asynchronous": True}
CONFIG = TINY_MODELS["llama"].config


@pytest.fixture
def load(tmp_path):
    """``load(options, **engine options)``: an LLM on the fake device."""
    loaded = []
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")

    def load(options, **engine):
        defaults = {"load_format": "dummy", "max_model_len": 96, "quiet": True, "seed": 3}
        defaults |= {"max_num_seqs": 8, "max_num_batched_tokens": 48, "swap_space": 0.001}
        loaded.append(LLM(str(tmp_path), "fake", options=options, **{**defaults, **engine}))
        return loaded[-1]

    yield load
    for llm in loaded:
        llm.close()


def workload(count=24, seed=0):
    """Prompts and settings of every kind: those that let a step go ahead, and those that do not."""
    draw = random.Random(seed)
    shared = [draw.randrange(CONFIG["vocab_size"]) for _ in range(20)]
    kinds = [
        {"temperature": 0},
        {"temperature": 0.9, "seed": 5},
        {"temperature": 1.0, "top_k": 20, "logprobs": 2},
        {"temperature": 0, "repetition_penalty": 1.3},
        {"temperature": 0.7, "n": 3, "seed": 2},
        {"temperature": 0, "prompt_logprobs": 1},
        {"temperature": 1.0, "stop_token_ids": list(range(0, CONFIG["vocab_size"], 7))},
    ]
    for index in range(count):
        prompt = [draw.randrange(CONFIG["vocab_size"]) for _ in range(draw.randint(1, 50))]
        if index % 3 == 0:
            prompt = shared + prompt[:30]
        options = kinds[index % len(kinds)]
        length = draw.randint(1, 30)
        yield {"prompt_token_ids": prompt}, SamplingParams(max_tokens=length, **options)


def answers(outputs):
    return [
        (output.error, [(each.token_ids, each.finish_reason) for each in output.outputs])
        for output in outputs
    ]


def logprobs(outputs):
    """Of every token, prompts' included, in order; NumPy's last bits depend on the batch."""
    entries = [
        (entry or {}).get(token)
        for output in outputs
        for each in output.outputs
        for token, entry in [
            *zip(each.token_ids, each.logprobs or (), strict=False),
            *zip(output.prompt_token_ids, output.prompt_logprobs or (), strict=False),
        ]
    ]
    return [entry.logprob for entry in entries if entry is not None]


def generate(llm, requests):
    prompts, params = zip(*requests, strict=True)
    return llm.generate(list(prompts), list(params), use_tqdm=False)


TIGHT = {"block_size": 4, "kv_cache_memory_bytes": 1 << 17}


@pytest.mark.parametrize(
    "engine",
    [
        {},
        {**TIGHT, "preemption_mode": "recompute"},
        {**TIGHT, "preemption_mode": "swap"},
        {**TIGHT, "enable_prefix_caching": False, "max_num_batched_tokens": 12},
    ],
    ids=["roomy", "recompute", "swap", "small chunks"],
)
def test_answers_are_those_of_steps_one_after_the_other(load, engine):
    expected = generate(load({}, **engine), workload())
    llm = load(ASYNCHRONOUS, **engine)
    outputs = generate(llm, workload())
    assert answers(outputs) == answers(expected)
    assert logprobs(outputs) == pytest.approx(logprobs(expected), abs=1e-4)
    scheduler = llm.loaded.engine.scheduler
    scheduler.check_integrity()
    assert all(group.num_used == 0 for group in scheduler.stats.groups)


@pytest.fixture
def events(monkeypatch):
    """("launch" | "wait", number of the step), as they happen."""
    noted, numbers = [], {}
    launch, wait = Runner.launch, Runner.wait

    def noting_launch(self, schedule, behind=None):
        flight = launch(self, schedule, behind)
        if flight is not None:
            numbers[flight] = len(numbers)
            noted.append(("launch", numbers[flight]))
        return flight

    def noting_wait(self, flight):
        noted.append(("wait", numbers[flight]))
        return wait(self, flight)

    monkeypatch.setattr(Runner, "launch", noting_launch)
    monkeypatch.setattr(Runner, "wait", noting_wait)
    return noted


def greedy(num_tokens, **options):
    options = {"temperature": 0, "ignore_eos": True, **options}
    return SamplingParams(max_tokens=num_tokens, **options)


def test_the_next_step_is_launched_before_the_last_is_waited_for(load, events):
    llm = load(ASYNCHRONOUS)
    llm.generate([{"prompt_token_ids": [1, 2, 3]}], greedy(5), use_tqdm=False)
    # Of five tokens the fifth has nothing behind it: how many there will be is known.
    assert events == [
        ("launch", 0),
        *[event for step in range(4) for event in (("launch", step + 1), ("wait", step))],
        ("wait", 4),
    ]


@pytest.mark.parametrize(
    "options", [{"repetition_penalty": 1.2}, {"n": 2, "temperature": 1.0}], ids=["penalty", "forks"]
)
def test_it_waits_where_the_host_needs_the_token(load, events, options):
    llm = load(ASYNCHRONOUS)
    llm.generate([{"prompt_token_ids": [1, 2, 3]}], greedy(3, **options), use_tqdm=False)
    assert events[:2] == [("launch", 0), ("wait", 0)]


def test_what_ends_early_costs_one_step_and_nothing_else(load, events):
    llm = load(ASYNCHRONOUS)
    (output,) = llm.generate([{"prompt_token_ids": [1, 2, 3]}], greedy(6), use_tqdm=False)
    stop = output.outputs[0].token_ids[2]
    del events[:]
    (output,) = llm.generate(
        [{"prompt_token_ids": [1, 2, 3]}], greedy(6, stop_token_ids=[stop]), use_tqdm=False
    )
    assert output.outputs[0].finish_reason == "stop"
    launched = [step for event, step in events if event == "launch"]
    assert len(launched) == output.outputs[0].token_ids.index(stop) + 2
    # The step too many is still under way; the next request does not notice.
    expected = answers(load({}).generate([{"prompt_token_ids": [4, 5]}], greedy(4)))
    assert answers(llm.generate([{"prompt_token_ids": [4, 5]}], greedy(4))) == expected


def test_a_request_may_be_aborted_while_its_step_is_under_way(load):
    llm = load(ASYNCHRONOUS)
    engine = llm.loaded.engine
    for name, prompt in (("a", [1, 2, 3]), ("b", [4, 5, 6])):
        engine.add_request(name, {"prompt_token_ids": prompt}, greedy(8))
    engine.step()
    engine.step()
    engine.abort(["a"])
    finished = {}
    while engine.has_unfinished_requests:
        for output in engine.step():
            engine.scheduler.check_integrity()
            finished[output.request_id] = output
    expected = load({}).generate([{"prompt_token_ids": [4, 5, 6]}], greedy(8), use_tqdm=False)
    assert finished["b"].outputs[0].token_ids == expected[0].outputs[0].token_ids
    assert engine.sleep(1) == []
    engine.wake_up()


@pytest.mark.parametrize("fault", ["step:raise@4", "get:raise@6", "plan:raise@5"])
def test_a_fault_costs_nobody_a_token(load, fault):
    requests = [({"prompt_token_ids": [i + 1, i + 2]}, greedy(9)) for i in range(4)]
    expected = generate(load({}), requests)
    llm = load({**ASYNCHRONOUS, "faults": fault})
    assert answers(generate(llm, requests)) == answers(expected)
    assert llm.loaded.engine.stats.num_failed_steps > 0
    llm.loaded.engine.scheduler.check_integrity()


def test_nan_ends_who_has_it_and_the_step_behind_is_dropped(load):
    requests = [({"prompt_token_ids": [i + 1, i + 2]}, greedy(9)) for i in range(4)]
    expected = generate(load({}), requests)
    llm = load({**ASYNCHRONOUS, "faults": "step:nan@5"})
    with pytest.raises(RequestFailedError) as failed:
        generate(llm, requests)
    for output, wanted in zip(failed.value.outputs, expected, strict=True):
        assert "NaN" in output.error
        assert output.outputs[0].token_ids == wanted.outputs[0].token_ids[:4]
    llm.loaded.engine.scheduler.check_integrity()
    assert answers(generate(llm, requests)) == answers(expected)


def test_decodes_alone_are_padded_to_their_buckets(load, monkeypatch):
    """And other steps are not; what is sampled stays the same."""
    requests = list(workload(12, seed=1))
    expected = generate(load({}), requests)
    shapes = set()
    llm = load(ASYNCHRONOUS)
    runner, backend = llm.loaded.engine.runner, llm.loaded.backend
    caps = dataclasses.replace(backend.caps, decode_buckets=(2, 4, 8, 16))
    monkeypatch.setattr(runner, "_buckets", type(runner._buckets).of(caps))
    plan = backend.plan

    def noting_plan(batch, block_size):
        shapes.add((len(batch.token_ids), len(batch.seq_lens), int(batch.query_start[-1])))
        return plan(batch, block_size)

    monkeypatch.setattr(backend, "plan", noting_plan)
    assert answers(generate(llm, requests)) == answers(expected)
    padded = {(tokens, seqs) for tokens, seqs, real in shapes if tokens != real or tokens == seqs}
    assert padded <= {(size, size) for size in (2, 4, 8, 16)}
    assert any(tokens == real > seqs for tokens, seqs, real in shapes)
