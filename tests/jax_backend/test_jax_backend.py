"""The backend `jax` on the CPU: its answers beside NumPy's, its shapes, its guard, its options."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("octavo_tpu", reason="octavo-tpu is not installed")

import jax
import jax.numpy as jnp
import ml_dtypes

from octavo import LLM, SamplingParams
from octavo.api import BackendError, DeviceError, KVSpec, UsageError
from octavo.testing.tiny_models import MAX_LEN, TINY_MODELS, VOCAB_SIZE
from octavo_tpu.load import find_devices, load
from octavo_tpu.ops import JaxOps
from octavo_tpu.options import JaxOptions
from octavo_tpu.programs import Program, compilation_is_an_error
from octavo_tpu.traced_once import traced_once
from op_suite import run_op_check, subject_over

RANDOM = np.random.default_rng(0)
PROMPTS = [RANDOM.integers(0, VOCAB_SIZE, length).tolist() for length in (1, 5, 17, 30)]
SMALL = {"token_buckets": [4, 24], "seq_buckets": [4], "compilation_cache": False}
SEVERAL = ("paged_attention", "sliding_window", "sinks", "attention_soft_cap", "kv_dtypes")


@pytest.fixture
def engine(tmp_path):
    """``engine(family, backend, **options)``: an LLM of random weights, which is closed again."""
    loaded = []

    def engine(family, backend, max_num_seqs=4, **options):
        config = TINY_MODELS[family].config
        (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
        loaded.append(
            LLM(
                str(tmp_path),
                device="cpu",
                backend=backend,
                dtype="float32",
                load_format="dummy",
                max_model_len=MAX_LEN // 2,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=24,  # the longest prompt comes in two chunks
                kv_cache_memory_bytes=1 << 22,
                max_logprobs=100,
                quiet=True,
                options=options,
            )
        )
        return loaded[-1]

    yield engine
    for llm in loaded:
        llm.loaded.close()


def test_one_request_at_a_time_has_all_that_it_may_ask_for_compiled(engine):
    """Its decodes are in a program of one row, its prompts in one of two."""
    llm = engine("llama", "jax", **{**SMALL, "seq_buckets": [1, 4]}, max_num_seqs=1)
    several = [{"logprobs": number} for number in (3, 40, 100)]
    with compilation_is_an_error():
        for wanted in ({}, {"temperature": 0}, {"logit_bias": {3: 1.0}}, *several):
            assert len(answers(llm, **wanted)) == len(PROMPTS)
        params = SamplingParams(max_tokens=2, logprobs=40, temperature=0, ignore_eos=True)
        [output] = ask(llm, PROMPTS[:1], params)
    assert [len(row) for row in output.outputs[0].logprobs] == [40, 40]


def answers(llm, **sampling):
    params = SamplingParams(max_tokens=8, ignore_eos=True, **sampling)
    prompts = [{"prompt_token_ids": prompt} for prompt in PROMPTS]
    outputs = llm.generate(prompts, params, use_tqdm=False)
    return [output.outputs[0].token_ids for output in outputs]


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_tokens_are_those_of_numpy(engine, family):
    ours = engine(family, "jax", **SMALL, compile_at_start=False)
    reference = engine(family, "numpy")
    for sampling in ({"temperature": 0}, {"temperature": 1, "seed": 3, "top_p": 0.9, "top_k": 40}):
        assert answers(ours, **sampling) == answers(reference, **sampling)


def test_what_was_rehearsed_is_all_that_is_compiled(engine, caplog):
    llm = engine("llama", "jax", **SMALL)
    with compilation_is_an_error():
        answers(llm, temperature=0)
        answers(llm, temperature=0.8, top_p=0.9)
        answers(llm, temperature=0.8, logprobs=3)
        several = SamplingParams(max_tokens=4, n=3, seed=2)
        llm.generate([{"prompt_token_ids": [3, 5]}], several, use_tqdm=False)
        answers(llm, temperature=0.8, repetition_penalty=1.2, logit_bias={3: 2.0}, logprobs=20)
        answers(llm, temperature=0, allowed_token_ids=[3, 5, 7], presence_penalty=0.5)
        for length in (3, 40):
            prompt = {"prompt_token_ids": [7] * length}
            llm.generate([prompt], SamplingParams(max_tokens=9, temperature=0), use_tqdm=False)
    assert caplog.text == ""  # a step that fails would be computed again, with a warning


def test_prompts_are_scored_and_many_answers_drawn_with_nothing_compiled(engine, caplog):
    """40 tokens of the prompts have log-probabilities, and one step samples 12 rows: for 4."""
    ours, reference = engine("llama", "jax", **SMALL), engine("llama", "numpy")
    scored = SamplingParams(max_tokens=3, prompt_logprobs=2, temperature=0, ignore_eos=True)
    several = SamplingParams(
        max_tokens=3, n=3, seed=5, ignore_eos=True, repetition_penalty=1.3, logit_bias={3: 1.0}
    )
    short = [[5], [6, 7], [8], [9, 10]]
    found = []
    for llm in (ours, reference):
        with compilation_is_an_error():
            found.append([ask(llm, PROMPTS, scored), ask(llm, short, several)])
    assert caplog.text == ""
    (our_scored, our_several), (scored, several) = found
    for ours, expected in zip(our_scored, scored, strict=True):
        assert ours.outputs[0].token_ids == expected.outputs[0].token_ids
        assert ours.prompt_logprobs[0] is expected.prompt_logprobs[0] is None
        for row, wanted in zip(ours.prompt_logprobs[1:], expected.prompt_logprobs[1:], strict=True):
            assert row.keys() == wanted.keys()
            for token_id, logprob in wanted.items():
                assert row[token_id].rank == logprob.rank
                assert row[token_id].logprob == pytest.approx(logprob.logprob, abs=1e-4)
    for ours, expected in zip(our_several, several, strict=True):
        pairs = zip(ours.outputs, expected.outputs, strict=True)
        assert all(one.token_ids == other.token_ids for one, other in pairs)


@pytest.mark.parametrize("level", [1, 2])
def test_an_engine_that_was_woken_has_nothing_to_compile(engine, level):
    llm = engine("llama", "jax", **SMALL)
    before = answers(llm, temperature=0)
    step = llm.loaded.engine.runner._device_step
    weights = [weakref.ref(leaf) for leaf in jax.tree.leaves(step.weights)]
    llm.loaded.engine.sleep(level)
    num_kept = sum(weight() is not None for weight in weights)
    assert num_kept == (len(weights) if level == 1 else 0)
    llm.loaded.engine.wake_up()
    with compilation_is_an_error():
        assert answers(llm, temperature=0) == before


def test_two_threads_trace_an_op_to_the_same_function(monkeypatch):
    """With one each, programs would differ from start to start, and miss the compilation cache."""

    class Doubling:
        def __init__(self):
            self.traces = {}

        @traced_once
        def double(self, x):
            return x + x

    both, called = threading.Barrier(2), []

    def jit(function):
        both.wait(timeout=30)  # each has found no trace
        return lambda arrays: called.append(function) or function(arrays)

    monkeypatch.setattr("jax.jit", jit)
    ops = Doubling()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ops.double, [np.ones(1), np.ones(1)])) == [2, 2]
    assert len(called) == 2
    assert len(set(called)) == 1


def ask(llm, prompts, params):
    return llm.generate(
        [{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False
    )


def test_what_is_compiled_while_requests_wait_is_told(caplog):
    program = Program(lambda _weights, cache, x: (cache, x + 1), lambda: is_serving)
    is_serving = False
    program((), jnp.zeros(2), np.zeros(3, np.int32))
    is_serving = True
    with caplog.at_level(logging.WARNING, "octavo_tpu.programs"):
        program((), jnp.zeros(2), np.ones(3, np.int32))
        assert caplog.records == []
        program((), jnp.zeros(2), np.ones(4, np.int32))
    assert "is compiled while requests wait, for int32[4]" in caplog.text
    with compilation_is_an_error(), pytest.raises(BackendError, match=r"for int32\[5\]"):
        program((), jnp.zeros(2), np.ones(5, np.int32))
    assert program.num_compiled == 2


@pytest.mark.parametrize("check", SEVERAL)
def test_attention(check):
    run_op_check(subject_over(load(0, {"device_kind": "cpu", **SMALL})), check, quick=True)


@pytest.mark.parametrize("check", ["paged_attention", "sliding_window", "sampling"])
def test_where_a_program_is_to_have_no_branches_and_loops_of_known_turns(check, monkeypatch):
    backend = load(0, {"device_kind": "cpu", **SMALL})
    backend.ops = JaxOps("neuron")
    loops = []
    fori_loop = jax.lax.fori_loop
    monkeypatch.setattr(
        "jax.lax.fori_loop", lambda *turns: loops.append(turns[:2]) or fori_loop(*turns)
    )
    monkeypatch.delattr("jax.lax.switch")
    run_op_check(subject_over(backend), check, quick=True)
    assert loops
    assert all(isinstance(turn, int) for turns in loops for turn in turns)


@pytest.mark.parametrize(("dtype", "kept_as"), [("bfloat16", np.uint16), ("int8", np.int8)])
def test_a_cache_of_few_bits_is_of_whole_numbers_and_moves_to_the_host_and_back(dtype, kept_as):
    backend = load(0, {"device_kind": "cpu", **SMALL})
    spec = KVSpec("full", 2, 8, dtype)
    cache, host = (backend.make_kv(spec, 4, 16, on_host=on_host) for on_host in (False, True))
    assert cache.kv.dtype == kept_as
    values = RANDOM.normal(size=(2, 2, 2, 8)).astype(ml_dtypes.bfloat16)  # K and V of two tokens
    slots = np.array([16, 63], np.int32)
    plan = type("Plan", (), {"slots": slots})
    cache = backend.ops.write_kv(cache, *map(backend.put, values), plan)
    host = backend.copy_blocks(cache, host, np.array([[1, 2], [3, 0]], np.int32))
    back = backend.copy_blocks(host, backend.make_kv(spec, 3, 16), np.array([[2, 1]], np.int32))
    wanted = np.concatenate(values.astype(np.float32), axis=1)  # [tokens, K's heads and V's, 8]
    for moved, place, token in ((back, (1, 0), 0), (host, (0, 15), 1)):
        stored = np.asarray(moved.kv[place])
        if dtype == "int8":
            scales = np.asarray(moved.scales[place])[:, None]
            assert scales == pytest.approx(abs(wanted[token]).max(1, keepdims=True) / 127)
            np.testing.assert_allclose(stored * scales, wanted[token], atol=scales.max() * 0.501)
        else:
            assert np.array_equal(stored.view(ml_dtypes.bfloat16), wanted[token])
    for part in (back.kv, back.scales):
        assert part is None or not np.asarray(part)[[0, 2]].any()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what memory is in use")
def test_a_cache_takes_memory_as_it_is_written():
    backend, spec = load(0, {"device_kind": "cpu"}), KVSpec("full", 4, 64, "float32")
    before = resident_bytes()
    cache = backend.make_kv(spec, 1 << 13, 16)  # 256 MiB
    assert resident_bytes() - before < 1 << 26
    swap = backend.make_kv(spec, 1 << 13, 16, on_host=True)
    assert not backend.copy_blocks(cache, swap, np.array([[7, 5]])).kv[5].any()
    written = backend.copy_blocks(swap, backend.make_kv(spec, 1 << 13, 16), np.array([[7, 5]]))
    assert not np.asarray(written.kv[5]).any()
    assert not np.asarray(written.kv[-1]).any()
    assert resident_bytes() - before < 1 << 26


def resident_bytes():
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token_bucket": [8]}, "has no option 'token_bucket'; it has token_buckets"),
        ({"token_buckets": []}, r"token_buckets of backend 'jax' is \[\]; expected a list"),
        ({"seq_buckets": [0]}, r"is \[0\]; expected a list of whole numbers, at least 1 each"),
        ({"compile_at_start": 1}, "is 1; expected true or false"),
        ({"compilation_cache": ""}, "is ''; expected true, false or a folder"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        JaxOptions.parse(options)


def test_a_device_that_is_not_there():
    with pytest.raises(DeviceError, match=r"There is no device cpu:99; JAX has cpu:0"):
        load(99, {"device_kind": "cpu"})
    with pytest.raises(UsageError, match=r"needs cpu:0 to cpu:98; the last .* XLA_FLAGS=.*=99"):
        load(0, {"device_kind": "cpu", "tensor_parallel_size": 99})
    with pytest.raises(DeviceError, match="JAX cannot use tpu"):
        load(0, {"device_kind": "tpu"})


@pytest.mark.parametrize(
    ("options", "variables", "joined"),
    [
        ({}, {}, None),
        ({}, {"ADDRESS": "a:1"}, (None, None, None)),
        ({}, {"ADDRESS": "a:1", "NUM": "3", "ID": "0"}, (None, 3, 0)),
        ({"process_id": 0, "num_processes": 2}, {"ADDRESS": "a:1", "ID": "1"}, (None, 2, 0)),
        ({"coordinator_address": "b:2", "process_id": 1}, {"NUM": "2"}, ("b:2", 2, 1)),
        ({"coordinator_address": "b:2"}, {"NUM": "two"}, "JAX_NUM_PROCESSES is 'two'; expected a"),
    ],
)
def test_processes_meet_as_options_or_the_environment_say(monkeypatch, options, variables, joined):
    names = {"ADDRESS": "COORDINATOR_ADDRESS", "NUM": "NUM_PROCESSES", "ID": "PROCESS_ID"}
    for short, name in names.items():
        monkeypatch.delenv(f"JAX_{name}", raising=False)
        if short in variables:
            monkeypatch.setenv(f"JAX_{name}", variables[short])
    meetings = []
    monkeypatch.setattr(
        "octavo_tpu.processes.join_processes", lambda *given: meetings.append(given)
    )
    if isinstance(joined, str):
        with pytest.raises(UsageError, match=joined):
            load(0, options)
    else:
        load(0, options)
        assert meetings == ([] if joined is None else [joined])


@pytest.mark.parametrize(
    ("chosen", "kind", "leaves_out"),
    [("cuda", "cpu", True), ("tpu,cuda", "cpu", True), ("cpu", "tpu", True), ("", "cpu", False),
     ("tpu,cpu", "cpu", False), ("cpu", "cpu", False)],
)  # fmt: skip
def test_a_platform_that_jax_is_kept_from(monkeypatch, chosen, kind, leaves_out):
    monkeypatch.setattr("octavo_tpu.load._chosen_platforms", lambda: chosen)
    if leaves_out:
        with pytest.raises(DeviceError, match=f"JAX_PLATFORMS='{chosen}' leaves it out; unset it"):
            find_devices(kind)
    else:
        assert find_devices(kind)
