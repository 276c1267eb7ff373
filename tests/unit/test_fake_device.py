"""The fake device: what it answers, what it has room for, what fails on it, and who is shown it."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import time

import numpy as np
import pytest

from octavo import LLM, AsyncLLM, SamplingParams
from octavo.devices import list_devices, resolve
from octavo.errors import BackendError, DeviceError, QueueFullError, RequestFailedError, UsageError
from octavo.sampling_params import RequestOutputKind
from octavo.testing.tiny_models import TINY_MODELS
from throwaway_plugins import run_octavo

MODELS = {name: model.config for name, model in TINY_MODELS.items()}
LLAMA = MODELS["llama"]
VOCAB_SIZE = LLAMA["vocab_size"]
PROMPTS = [[1, 2, 3], [7] * 20, list(range(5, 45)), [9, 8]]
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, detokenize=False)
LLAMA_70B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
    "rope_theta": 500_000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
GIB = 1 << 30


@pytest.fixture
def load(tmp_path):
    """``load(config, fake options, **engine options)``: an LLM on the fake device."""
    loaded = []

    def load(config=LLAMA, options=None, *, device="fake", kind=LLM, **engine):
        folder = tmp_path / f"model-{len(loaded)}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        defaults = {"load_format": "dummy", "max_model_len": 96, "quiet": True, "swap_space": 0.01}
        defaults |= {"max_num_seqs": 8, "max_num_batched_tokens": 64}
        loaded.append(kind(str(folder), device, options=options, **{**defaults, **engine}))
        return loaded[-1]

    yield load
    for llm in loaded:
        llm.close()


def tokens(outputs):
    return [[answer.token_ids for answer in output.outputs] for output in outputs]


def test_it_answers_what_numpy_answers(load):
    expected = tokens(load(device="cpu", backend="numpy").generate(PROMPTS, GREEDY))
    assert tokens(load().generate(PROMPTS, GREEDY)) == expected


def hashed_answer(prompt, num_tokens, windows=(None,)):
    """What the device that does not compute answers, worked out without any paging."""
    seen = list(prompt)
    for _ in range(num_tokens):
        position = len(seen) - 1
        digest = hashlib.blake2b(position.to_bytes(8, "little"), digest_size=8)
        for window in windows:
            visible = seen if window is None else seen[-window:]
            digest.update((np.array(visible, np.int32) + 1).tobytes())
        seen.append(int.from_bytes(digest.digest(), "little") % VOCAB_SIZE)
    return seen[len(prompt) :]


HOLLOW = {"compute": False}
SMALL_CACHE = {"kv_cache_memory_bytes": 1 << 14, "block_size": 4, "max_model_len": 56}


@pytest.mark.parametrize("name", MODELS)
def test_without_arithmetic_it_runs_every_family(load, name):
    outputs = load(MODELS[name], HOLLOW).generate([[1, 2, 3], [4]], GREEDY)
    assert [len(output.outputs[0].token_ids) for output in outputs] == [12, 12]


@pytest.mark.parametrize(
    "engine",
    [
        {},
        {"max_num_batched_tokens": 8},
        {"max_num_seqs": 2},
        {**SMALL_CACHE, "preemption_mode": "swap"},
        {**SMALL_CACHE, "preemption_mode": "recompute"},
    ],
)
def test_without_arithmetic_its_tokens_follow_from_what_is_visible(load, engine):
    """Also in chunks, in small batches, and after preemption."""
    llm = load(LLAMA, HOLLOW, **engine)
    expected = [[hashed_answer(prompt, 12)] for prompt in PROMPTS]
    assert tokens(llm.generate(PROMPTS, GREEDY)) == expected
    assert tokens(llm.generate(PROMPTS, GREEDY)) == expected  # from the prefix cache
    if "preemption_mode" in engine:
        stats = llm.loaded.engine.scheduler.stats
        assert getattr(stats, f"num_{engine['preemption_mode']}_preemptions") > 0


def test_without_arithmetic_a_window_hides_what_is_behind_it(load):
    config = MODELS["gemma3"]
    window = config["sliding_window"]
    kinds = config["layer_types"]
    first_seen = list(dict.fromkeys(kind == "sliding_attention" for kind in kinds))
    windows = [window if is_sliding else None for is_sliding in first_seen]
    llm = load(config, HOLLOW, block_size=4)
    (output,) = llm.generate([list(range(3, 43))], GREEDY)
    assert output.outputs[0].token_ids == hashed_answer(range(3, 43), 12, windows)


def test_without_arithmetic_seeds_and_samples_count(load):
    llm = load(LLAMA, HOLLOW)

    def answers(seed):
        params = SamplingParams(n=3, seed=seed, max_tokens=8, ignore_eos=True, detokenize=False)
        return tokens(llm.generate([[1, 2]], params))[0]

    assert answers(1) == answers(1)
    assert len({tuple(each) for each in [*answers(1), *answers(2)]}) == 6


def test_without_arithmetic_only_allowed_tokens_come(load):
    params = SamplingParams(
        temperature=0, max_tokens=20, allowed_token_ids=[3, 5, 250], detokenize=False
    )
    ((answer,),) = tokens(load(LLAMA, HOLLOW).generate([[1, 2]], params))
    assert len(answer) == 20
    assert set(answer) <= {3, 5, 250}
    assert len(set(answer)) > 1


def test_without_arithmetic_logprobs_are_those_of_a_coin(load):
    params = SamplingParams(
        temperature=0, max_tokens=2, logprobs=3, prompt_logprobs=0, detokenize=False
    )
    (output,) = load(LLAMA, HOLLOW).generate([[1, 2, 3]], params)
    for entry in output.outputs[0].logprobs + output.prompt_logprobs[1:]:
        for logprob in entry.values():
            assert logprob.logprob == pytest.approx(-np.log(VOCAB_SIZE))


def test_a_model_of_any_size_loads_without_memory(load):
    llm = load(LLAMA_70B, {**HOLLOW, "memory_bytes": 160 * GIB}, max_model_len=4096)
    memory = llm.loaded.backend.memory()
    parameter_bytes = 2 * llm.loaded.engine.model.num_parameters  # bfloat16
    assert parameter_bytes > 140e9
    taken_bytes = memory.total_bytes - memory.free_bytes
    assert parameter_bytes + llm.loaded.plan.device_bytes <= taken_bytes
    assert taken_bytes < parameter_bytes + llm.loaded.plan.device_bytes + (1 << 24)
    (output,) = llm.generate([[1, 2, 3]], GREEDY)
    assert len(output.outputs[0].token_ids) == 12


@pytest.mark.parametrize("compute", [True, False])
def test_memory_is_taken_and_given_back(load, compute):
    llm = load(LLAMA, {"compute": compute, "memory_bytes": 1 << 26})
    backend, plan = llm.loaded.backend, llm.loaded.plan
    weight_bytes = llm.loaded.engine.model.num_parameters * (4 if compute else 2)
    taken_bytes = (1 << 26) - backend.memory().free_bytes
    assert taken_bytes == pytest.approx(weight_bytes + plan.device_bytes, abs=1 << 16)

    before_bytes = backend.memory().free_bytes
    array = backend.put(np.zeros(1000, np.float32))
    assert backend.memory().free_bytes == before_bytes - 4000
    del array
    gc.collect()
    assert backend.memory().free_bytes == before_bytes


@pytest.mark.parametrize("compute", [True, False])
def test_a_model_that_does_not_fit_is_refused(load, compute):
    with pytest.raises(BackendError, match=r"fake:0 is out of memory: .* takes .* memory_bytes to"):
        load(LLAMA, {"compute": compute, "memory_bytes": 1 << 16})


@pytest.mark.parametrize("compute", [True, False])
def test_a_cache_that_does_not_fit_says_how_many_blocks_would(load, compute):
    llm = load(LLAMA, {"compute": compute, "memory_bytes": 1 << 26})
    backend, spec = llm.loaded.backend, llm.loaded.plan.groups[0].spec
    free_bytes = backend.memory().free_bytes
    with pytest.raises(MemoryError) as error:
        backend.make_kv(spec, 1 << 20, 16)
    fits = free_bytes // (16 * spec.bytes_per_token)
    assert f"{fits} blocks would fit" in str(error.value)
    backend.make_kv(spec, fits, 16)
    backend.make_kv(spec, 1 << 8, 16, on_host=True)  # the host's memory is not the device's


def test_a_step_takes_its_time(load):
    llm = load(LLAMA, {**HOLLOW, "latency_s": 0.02, "token_latency_s": 0.001})
    started_s = time.monotonic()
    llm.generate([[1, 2, 3]], GREEDY)
    assert time.monotonic() - started_s >= 12 * 0.02 + 14 * 0.001


def test_devices_have_memory_of_their_own(load, monkeypatch):
    monkeypatch.setenv("OCTAVO_FAKE_DEVICES", "3")
    options = {"memory_bytes": 1 << 26}
    first, second = (load(LLAMA, options, device=f"fake:{index}") for index in (0, 2))
    before_bytes = second.loaded.backend.memory().free_bytes
    held = first.loaded.backend.put(np.zeros(1000, np.float32))
    assert second.loaded.backend.memory().free_bytes == before_bytes
    assert tokens(first.generate(PROMPTS, GREEDY)) == tokens(second.generate(PROMPTS, GREEDY))
    del held
    with pytest.raises(DeviceError, match="There is no fake:3; there is fake:0 of fake"):
        resolve("fake:3")


@pytest.mark.parametrize("number", ["many", "-1", "65", "1.5"])
def test_a_bad_number_of_devices_is_told(monkeypatch, number):
    monkeypatch.setenv("OCTAVO_FAKE_DEVICES", number)
    with pytest.raises(DeviceError, match=f"OCTAVO_FAKE_DEVICES is '{number}'; expected a whole"):
        resolve("fake")


def test_nobody_is_shown_it_who_did_not_ask(tmp_path):
    assert "fake" not in resolve("auto").reason
    assert "fake" not in {each.info.kind for each in list_devices().devices}
    assert "fake" in {each.info.kind for each in list_devices(everything=True).devices}
    site = tmp_path / "site"
    site.mkdir()
    assert "fake" not in run_octavo(site, "devices").stdout
    assert "no hardware" in run_octavo(site, "devices", "--all").stdout


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"memory": 1}, "no option 'memory'.*Did you mean 'memory_bytes'"),
        ({"memory_bytes": 0}, "memory_bytes .* is 0; expected a whole number of bytes"),
        ({"memory_bytes": True}, "memory_bytes"),
        ({"compute": 1}, "compute .* is 1; expected true or false"),
        ({"latency_s": -1}, "latency_s .* is -1; expected a number of seconds"),
        ({"latency_s": float("nan")}, "latency_s"),
        ({"latency_s": 1e300}, "latency_s .* from 0 to 86400"),
        ({"token_latency_s": "fast"}, "token_latency_s"),
        ({"faults": 5}, "faults .* is 5; expected MEMBER:KIND@CALL"),
        ({"faults": ["step:raise"]}, "'step:raise' .* cannot be read: expected MEMBER"),
        ({"faults": "step:raise@0"}, "'step:raise@0'"),
        ({"faults": "step:raise@" + "9" * 5000}, "cannot be read"),
        ({"faults": "stop:raise@1"}, "the members are step, get"),
        ({"faults": "step:explode@1"}, "the kinds are raise, oom, hang, nan"),
        ({"faults": "get:nan@1"}, "nan is a fault of step"),
        ({"faults": "step:hang@1"}, "says how long it lasts"),
        ({"faults": "step:raise@1:2s"}, "a hang, and nothing else"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(load, options, complaint):
    with pytest.raises(UsageError, match=complaint):
        load(LLAMA, options)


@pytest.mark.parametrize("fault", ["step:raise@3", "get:raise@4", "plan:oom@2", "step:hang@2:0s"])
@pytest.mark.parametrize("compute", [True, False])
def test_one_fault_costs_no_answer(load, fault, compute):
    expected = tokens(load(LLAMA, {"compute": compute}).generate(PROMPTS, GREEDY))
    faulty = load(LLAMA, {"compute": compute, "faults": fault})
    assert tokens(faulty.generate(PROMPTS, GREEDY)) == expected
    assert faulty.loaded.backend.num_struck == 1


@pytest.mark.parametrize("compute", [True, False])
def test_nan_ends_the_requests_of_its_step(load, compute):
    llm = load(LLAMA, {"compute": compute, "faults": ["step:nan@3"]})
    with pytest.raises(RequestFailedError, match="logits for this request hold NaN") as error:
        llm.generate([[1, 2]], GREEDY)
    assert len(error.value.outputs[0].outputs[0].token_ids) == 2
    assert llm.generate([[1, 2]], GREEDY)[0].outputs[0].finish_reason == "length"


def test_a_load_that_fails_says_why(load):
    with pytest.raises(Exception, match="fault injected into put_linear"):
        load(LLAMA, {"faults": "put_linear:raise@2"})


def test_async_llm_under_latency_refuses_what_the_queue_cannot_hold(load):
    """One runs, two wait, the others are refused at once; who was accepted is answered right."""
    llm = load(
        LLAMA,
        {**HOLLOW, "latency_s": 0.01},
        kind=AsyncLLM,
        max_num_seqs=1,
        max_num_waiting=2,
    )
    params = SamplingParams(
        temperature=0,
        max_tokens=10,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )

    async def ask(prompt):
        async for output in llm.generate(prompt, params):
            return output.outputs[0].token_ids
        return None

    async def ask_all():
        prompts = [[index + 1, 5] for index in range(8)]
        return prompts, await asyncio.gather(*map(ask, prompts), return_exceptions=True)

    prompts, answers = asyncio.run(ask_all())
    refused = [answer for answer in answers if isinstance(answer, QueueFullError)]
    served = {i: each for i, each in enumerate(answers) if isinstance(each, list)}
    assert len(refused) + len(served) == 8
    assert len(refused) >= 5
    assert served
    assert all(answer == hashed_answer(prompts[i], 10) for i, answer in served.items())
