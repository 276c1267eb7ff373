"""The MLX example: ops, sampling, caches and whole models, against oracle and NumPy backend."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import array_api_compat.numpy as numpy_namespace
import ml_dtypes
import mlx.core as mx
import numpy as np
import pytest

from octavo import AsyncLLM, SamplingParams
from octavo.api import (
    BackendError,
    DeviceError,
    DeviceInfo,
    KVSpec,
    PortableCache,
    PortableOps,
    UsageError,
)
from octavo.ops.arrays import check_namespace
from octavo.ops.sampling import sample
from octavo.step import map_arrays
from octavo.testing.answers import generate, greedy
from octavo.testing.subject import Subject
from octavo.testing.tiny_models import TINY_MODELS
from octavo_cpu import plugin as cpu_plugin
from octavo_mlx import namespace, plugin
from octavo_mlx.backend import MlxBackend
from op_suite import OP_CHECKS, run_op_check, subject_over
from sampling_batches import random_batch, random_logits

PROMPTS = [[(7 * length + 5 * i) % 256 for i in range(length)] for length in (1, 9, 40)]
TINY_LLAMA_BLOCK_BYTES = 16 * 2 * 2 * 2 * 16 * 4  # tokens, layers, K and V, heads, dim, float32
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@pytest.fixture(scope="module")
def backend():
    backend = MlxBackend(0, {})
    yield backend
    backend.close()


def under_test(backend_plugin, name, kind):
    specs = []
    backend_plugin.octavo_register_backends(specs.append)
    (spec,) = (spec for spec in specs if spec.name == name)
    return Subject.of(spec, DeviceInfo(kind, 0, kind))


mlx_subject = under_test(plugin, "mlx", "mlx")
numpy_subject = under_test(cpu_plugin, "numpy", "cpu")


@pytest.fixture(scope="module", params=["portable", "own"])
def subject(request):
    backend = MlxBackend(0, {})
    if request.param == "portable":
        backend.ops = PortableOps(namespace)
    yield subject_over(backend)
    backend.close()


@pytest.mark.parametrize("check", OP_CHECKS)
def test_ops_equal_oracle(subject, check):
    run_op_check(subject, check, quick=True)


@pytest.mark.parametrize("seed", range(8))
def test_sampling_draws_the_tokens_that_numpy_draws(backend, seed):
    rng = np.random.default_rng(seed)
    rows, vocab_size = 24, int(rng.choice([3, 130, 5000]))
    logits, batch = random_logits(rng, rows, vocab_size), random_batch(rng, rows, vocab_size)
    logits[0, 1], logits[1] = np.nan, -np.inf
    expected = sample(numpy_namespace, logits, batch)
    drawn = backend.ops.sample(backend.put(logits), map_arrays(batch, backend.put))
    for field in ("token_ids", "valid", "ranks", "top_ids"):
        usable = slice(None) if field in ("token_ids", "valid") else slice(2, None)
        result = backend.get(getattr(drawn, field))[usable]
        np.testing.assert_array_equal(result, getattr(expected, field)[usable], err_msg=field)
    assert not expected.valid[1]
    for field in ("logprobs", "top_logprobs"):
        result = backend.get(getattr(drawn, field))[2:]
        np.testing.assert_allclose(result, getattr(expected, field)[2:], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "llama-dynamic-rope", "gemma2", "gemma3", "gpt2"])
def test_model_says_what_it_says_on_numpy(name):
    answers = []
    for subject in (mlx_subject, numpy_subject):
        with subject.engine(TINY_MODELS[name].config) as loaded:
            answers.append(generate(loaded, PROMPTS))
    for own, expected in zip(*answers, strict=True):
        assert own.token_ids == expected.token_ids
        np.testing.assert_allclose(own.logprobs, expected.logprobs, atol=1e-4)


def test_steps_without_a_sampled_token_do_no_harm():
    """MLX cannot reduce an empty array, and chunks of a prompt sample nothing."""
    options = {"max_num_batched_tokens": 16, "max_num_seqs": 4}
    answers = []
    for subject in (mlx_subject, numpy_subject):
        with subject.engine(TINY_MODELS["llama"].config, **options) as loaded:
            answers.append([a.token_ids for a in generate(loaded, PROMPTS, greedy(logprobs=3))])
    assert answers[0] == answers[1]


def test_swapped_forks_say_what_they_say_on_numpy(monkeypatch):
    """A cache too small for all, so that blocks go to the host and come back, with n > 1."""
    directions = set()
    copy_blocks = MlxBackend.copy_blocks

    def spy(self, src, dst, pairs):
        directions.add((type(src.k), type(dst.k)))
        return copy_blocks(self, src, dst, pairs)

    params = SamplingParams(n=2, temperature=0.8, top_p=0.9, seed=4, max_tokens=40, ignore_eos=True)
    options = {
        "kv_cache_memory_bytes": 14 * TINY_LLAMA_BLOCK_BYTES,
        "swap_space": 0.001,
        "preemption_mode": "swap",
    }
    answers = []
    for subject in (mlx_subject, numpy_subject):
        with subject.engine(TINY_MODELS["llama"].config, **options) as loaded:
            monkeypatch.setattr(MlxBackend, "copy_blocks", spy)
            answers.append([a.token_ids for a in generate(loaded, PROMPTS, params)])
    assert directions == {(mx.array, mx.array), (mx.array, np.ndarray), (np.ndarray, mx.array)}
    assert answers[0] == answers[1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_go_to_host_and_back_bit_by_bit(backend, dtype):
    spec = KVSpec("full", 2, 8, dtype)
    values = np.random.default_rng(0).standard_normal((6, 4, 2, 8)).astype(DTYPES[dtype])
    filled = PortableCache(backend.put(values), backend.put(-values))
    host = backend.make_kv(spec, 5, 4, on_host=True)
    back = backend.make_kv(spec, 6, 4)
    host = backend.copy_blocks(filled, host, np.array([[1, 3], [5, 2], [0, 1]], np.int32))
    back = backend.copy_blocks(host, back, np.array([[3, 2], [2, 4]], np.int32))
    back = backend.copy_blocks(back, back, np.array([[2, 1]], np.int32))  # a fork
    back = backend.copy_blocks(back, back, np.zeros((0, 2), np.int32))
    expected = np.zeros_like(values)
    expected[[2, 4, 1]] = values[[1, 5, 1]]
    np.testing.assert_array_equal(backend.get(back.k), expected)
    np.testing.assert_array_equal(backend.get(back.v), -expected)
    np.testing.assert_array_equal(backend.get(filled.k), values)


@pytest.mark.parametrize("dtype", [*DTYPES, "int32", "bool"])
def test_what_is_put_comes_back(backend, dtype):
    host = np.arange(12).reshape(3, 4).astype(DTYPES.get(dtype, dtype))
    for array in (host, host.T, host[:0], host[1, 1:2]):
        returned = backend.get(backend.put(array))
        assert returned.dtype == array.dtype
        np.testing.assert_array_equal(returned, array)


def test_put_converts_and_copies(backend):
    host = np.array([1.0, 1 + 2**-9], np.float32)
    placed = backend.put(host, "bfloat16")
    host[:] = 5
    assert backend.get(placed).dtype == ml_dtypes.bfloat16
    assert backend.get(placed).tolist() == [1, 1]


def test_steps_run_in_another_thread():
    """MLX's lazy arrays belong to a thread, and AsyncLLM's engine has its own."""

    async def answer(llm):
        prompt = {"prompt_token_ids": PROMPTS[1]}
        outputs = [output async for output in llm.generate(prompt, greedy())]
        return tuple(outputs[-1].outputs[0].token_ids)

    config = TINY_MODELS["llama"].config
    with numpy_subject.engine(config) as loaded:
        (expected,) = generate(loaded, PROMPTS[1:2], greedy())
    with mlx_subject.engine(config) as loaded:
        llm = AsyncLLM.from_loaded(loaded)
        assert asyncio.run(answer(llm)) == expected.token_ids
        llm.close()


def test_members_return_arrays_that_any_thread_can_read(backend):
    spec = KVSpec("full", 2, 8, "bfloat16")
    block = np.zeros((1, 4, 2, 8), ml_dtypes.bfloat16)
    made = []

    def make():
        device, host = backend.make_kv(spec, 4, 4), backend.make_kv(spec, 4, 4, on_host=True)
        pairs = np.array([[1, 2]], np.int32)
        weight = backend.put_linear(block[0, 0], None, "float16")
        made.extend([*vars(backend.copy_blocks(host, device, pairs)).values(), weight.weight])
        made.append(backend.compile(lambda x: (x + 1, None))(backend.put(block))[0])

    thread = threading.Thread(target=make)
    thread.start()
    thread.join(60)
    assert len(made) == 4
    for array in made:
        backend.get(array)


def test_step_updates_a_cache_in_its_own_memory(backend):
    """Each step would copy the whole cache if the dead argument kept its old value alive."""
    cache = backend.make_kv(KVSpec("full", 4, 64, "float32"), 1024, 16)
    cache_bytes = cache.k.nbytes + cache.v.nbytes
    rows = backend.put(np.ones((1, 4, 64), np.float32))
    plan = SimpleNamespace(slots=backend.put(np.array([5], np.int32)))
    write = backend.compile(lambda cache: backend.ops.write_kv(cache, rows, rows, plan))
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    for _ in range(3):
        cache = write(cache)
    assert mx.get_peak_memory() - before < cache_bytes // 4
    assert backend.get(cache.k)[0, 5].all()


def test_memory_is_the_hosts(backend):
    memory = backend.memory()
    assert memory.shared_with_host
    assert 0 < memory.free_bytes <= memory.total_bytes


def test_refuses_what_it_does_not_have():
    with pytest.raises(DeviceError, match="mlx:3"):
        MlxBackend(3, {})
    with pytest.raises(UsageError, match=r"no options.*threads"):
        MlxBackend(0, {"threads": 2})


def test_mlx_itself_is_not_enough_of_a_namespace():
    with pytest.raises(BackendError, match=r"'mlx\.core' lacks set_at"):
        check_namespace(mx)
