"""A recorded step computes what its ops compute one by one, to the bit, whatever its size."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import array_api_compat.numpy as xp
import numpy as np
import pytest
from tiny_steps import TinySteps

from octavo.api import DeviceError
from octavo.ops.binding import _with_members
from octavo.ops.portable import PortableOps
from octavo.ops.sampling import sample
from octavo.step import join, make_sample
from octavo.testing.tiny_models import TINY_MODELS
from octavo_cpu.native.backend import NativeBackend
from octavo_cpu.native.library import load_library
from sampling_batches import make_batch

try:
    load_library()
except DeviceError as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture
def backend():
    opened = NativeBackend(0, {"threads": 2})
    yield opened
    opened.close()


STEPS = ([7], [1, 1], [3, 1, 9], [1], [40], [1, 1, 1], [2])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", TINY_MODELS)
def test_one_recording_of_each_family_gives_the_bits_of_eager_ops(backend, name, dtype):
    if dtype == "bfloat16" and name.startswith("gemma"):
        # Between its ops: NumPy widens bfloat16 times a number to float32, a recording does not.
        pytest.skip("NumPy's bfloat16 times a number is float32")
    recorded, eager = (TinySteps(backend, name, dtype) for _ in range(2))
    recorded.step = backend.compile(recorded.step)
    for counts in STEPS:
        logits, expected = recorded.run(counts), eager.run(counts)
        # The last product of a recording is not rounded.
        assert logits.astype(expected.dtype).tobytes() == expected.tobytes()
        assert logits.dtype == np.float32 or "gemma2" in name
    assert not recorded.step.is_eager
    assert len(recorded.step.programs) == 1


def make_sampling(counts, *, is_greedy):
    uniform = np.random.default_rng(sum(counts)).random(len(counts))
    settings = {"temperature": 0.0} if is_greedy else {"top_k": 9, "top_p": 0.9, "uniform": uniform}
    return make_batch(len(counts), **settings)


@pytest.mark.parametrize("is_greedy", [True, False])
@pytest.mark.parametrize("name", TINY_MODELS)
def test_tokens_are_drawn_within_the_recording(backend, name, is_greedy):
    """The reference draws from the same logits: recorded ones, which are not rounded."""
    sampled, forward = (TinySteps(backend, name, "bfloat16") for _ in range(2))
    whole = backend.compile(join(sampled.step, make_sample(backend.ops, 0)))
    forward.step = backend.compile(forward.step)
    for counts in STEPS:
        sampling = make_sampling(counts, is_greedy=is_greedy)
        result = sampled.run_with(whole, counts, sampling)
        expected = sample(xp, forward.run(counts).astype(np.float32), sampling)
        assert result.token_ids.tolist() == expected.token_ids.tolist()
        assert result.valid.all()
    assert not whole.is_eager
    assert len(whole.programs) == 1


def test_what_no_instruction_draws_is_not_recorded(backend):
    """Core gives it to the part that samples."""
    steps = TinySteps(backend, "llama", "bfloat16")
    whole = backend.compile(join(steps.step, make_sample(backend.ops, 0)))
    with_logprobs = dataclasses.replace(make_sampling([3], is_greedy=True), num_logprobs=2)
    assert steps.run_with(whole, [3], with_logprobs).top_ids.shape == (1, 2)
    assert whole.is_eager


def test_a_step_that_uses_its_number_of_tokens_is_recorded_for_each(backend):
    steps, eager = TinySteps(backend, "llama", "float32"), TinySteps(backend, "llama", "float32")
    forward = eager.step

    def by_number(weights, caches, batch, plans):
        caches, logits = forward(weights, caches, batch, plans)
        return caches, logits * float(batch.token_ids.shape[0])

    eager.step, steps.step = by_number, backend.compile(by_number)
    for counts in ([4], [1], [4], [1, 1], [1]):
        assert steps.run(counts).tobytes() == eager.run(counts).tobytes()
    assert len(steps.step.programs) == 3


@pytest.mark.parametrize(
    "spoil", [np.negative, lambda logits: logits[0], lambda logits: np.asarray(logits) * 2]
)
def test_what_cannot_be_recorded_runs_as_it_is(backend, spoil):
    steps, eager = TinySteps(backend, "llama", "float32"), TinySteps(backend, "llama", "float32")
    forward = eager.step

    def spoilt(*arguments):
        caches, logits = forward(*arguments)
        return caches, spoil(logits)

    eager.step, steps.step = spoilt, backend.compile(spoilt)
    for counts in ([4], [1, 1]):
        assert steps.run(counts).tobytes() == eager.run(counts).tobytes()
    assert steps.step.is_eager


def test_one_error_while_it_is_recorded_is_no_reason_to_give_up(backend, caplog):
    steps, eager = TinySteps(backend, "llama", "float32"), TinySteps(backend, "llama", "float32")
    forward, errors = eager.step, [MemoryError("short for once")]

    def once_short(*arguments):
        if errors:
            raise errors.pop()
        return forward(*arguments)

    steps.step = backend.compile(once_short)
    for counts in ([4], [1, 1]):
        assert steps.run(counts).tobytes() == eager.run(counts).tobytes()
    assert len(steps.step.programs) == 1
    assert not caplog.records


def test_a_step_that_is_given_up_is_reported_once_and_a_function_without_ops_never(backend, caplog):
    def spoilt(_weights, _caches, ids):
        return (
            np.asarray(ids) + np.asarray(backend.ops.embed(ids, np.eye(8, dtype=np.float32)))[:, 0]
        )

    for function in (spoilt, lambda _weights, _caches, _ids: (_caches, None)):
        compiled = backend.compile(function)
        for num_tokens in (1, 2, 2):
            compiled(None, (), np.arange(num_tokens, dtype=np.int32))
        assert compiled.is_eager
    (record,) = caplog.records
    assert "is computed op by op" in record.getMessage()


def test_an_op_of_somebody_else_is_called_with_numbers(backend):
    calls = []

    def silu_mul(gate_up):
        calls.append(np.asarray(gate_up).shape)
        return PortableOps(backend.ops.xp).silu_mul(gate_up)

    ops = _with_members(backend.ops, {"silu_mul": staticmethod(silu_mul)})
    steps = TinySteps(backend, "llama", "float32", ops=ops)
    steps.step = backend.compile(steps.step)
    steps.run([3])
    steps.run([2])
    assert [shape[0] for shape in calls] == [3, 3, 2, 2]


def test_other_weights_are_not_those_of_the_recording(backend):
    first, second = (TinySteps(backend, "llama", "float32", seed=seed) for seed in (0, 1))
    expected = second.run([5])
    second.reset()
    first.step = backend.compile(first.step)
    first.run([5])
    first.reset()
    first.weights = second.weights
    assert first.run([5]).tobytes() == expected.tobytes()


def test_a_released_step_keeps_no_weights(backend):
    steps = TinySteps(backend, "llama", "float32")
    steps.step = backend.compile(steps.step)
    steps.run([5])
    norm = weakref.ref(steps.weights.norm)
    steps.weights = None
    assert norm() is not None  # the recording computes with it
    del steps
    gc.collect()
    assert norm() is None


def test_memory_for_results_does_not_grow_with_layers_and_results_stay(backend):
    steps = TinySteps(backend, "llama", "float32")
    steps.step = backend.compile(steps.step)
    first = steps.run([64])
    kept = first.copy()
    steps.run([40])
    np.testing.assert_array_equal(first, kept)
    (program,) = steps.step.programs
    widest = 64 * (64 + 2 * 96 + 96) * 4
    assert program.nbytes < 3 * widest
