"""Native sampling gives the tokens of the NumPy sampler, on every instruction set."""

from __future__ import annotations

from typing import Any

import array_api_compat.numpy as xp
import ml_dtypes
import numpy as np
import pytest
from kernel_case import context, runnable_variants
from numpy.typing import NDArray

from octavo.ops import sampling_numpy, sampling_portable
from octavo.ops.protocol import SampleResult, SamplingBatch
from octavo.testing.sampling_vectors import sampling_vectors, token_logprob_vectors
from octavo_cpu.native import sampling
from octavo_cpu.native.library import Context
from sampling_batches import make_batch, random_batch, random_logits

VOCAB_SIZES = (1, 7, 128, 129, 1000, 5003)


@pytest.fixture(params=runnable_variants())
def opened(request: pytest.FixtureRequest) -> Any:
    """Two threads with one instruction set."""
    with context(request.param) as made:
        yield made


def _check(opened: Context, logits: NDArray[Any], batch: SamplingBatch) -> SampleResult:
    """The native tokens, which must be NumPy's."""
    expected = sampling_numpy.sample(logits.astype(np.float32), batch)
    result = sampling.sample(opened, logits, batch)
    np.testing.assert_array_equal(result.valid, expected.valid)
    np.testing.assert_array_equal(result.token_ids, expected.token_ids)
    return result


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_random_batches(opened: Context, vocab_size: int) -> None:
    rng = np.random.default_rng(vocab_size)
    for dtype in (np.float32, ml_dtypes.bfloat16, np.float16):
        logits = random_logits(rng, 60, vocab_size).astype(dtype)
        batch = random_batch(rng, 60, vocab_size)
        result = _check(opened, logits, batch)
        portable = sampling_portable.sample(xp, logits.astype(np.float32), batch)
        for name in ("token_ids", "ranks", "top_ids", "valid"):
            np.testing.assert_array_equal(getattr(result, name), getattr(portable, name))
        np.testing.assert_allclose(result.logprobs, portable.logprobs, atol=1e-4)


def test_plain_batches_over_a_large_vocabulary(opened: Context) -> None:
    rng = np.random.default_rng(0)
    logits = random_logits(rng, 12, 50_257)
    for settings in (
        {"temperature": 0},
        {"temperature": [0.0, 0.7] * 6},
        {},
        {"top_k": [1, 2, 50, 400, 5000, 50_256] * 2},
        {"top_p": [0.0, 1e-9, 0.5, 0.9, 0.999, 1.0] * 2, "temperature": [0.3] * 6 + [5.0] * 6},
        {"min_p": 0.05, "temperature": 1.5},
        {"top_k": 50, "top_p": 0.95, "min_p": 0.01, "temperature": 0.8},
    ):
        for uniform in (0.0, 0.5, 1 - 2.0**-24, rng.integers(0, 2**24, 12) * 2.0**-24):
            _check(opened, logits, make_batch(12, uniform=uniform, **settings))


def test_rows_that_cannot_be_sampled(opened: Context) -> None:
    logits = np.tile(np.linspace(-3, 3, 300, dtype=np.float32), (6, 1))
    logits[0, 7], logits[1, 299], logits[2], logits[3, 150] = np.nan, np.nan, -np.inf, np.inf
    logits[4, :299] = -np.inf
    for temperature in (0, 1):
        result = _check(opened, logits, make_batch(6, temperature=temperature, uniform=0.9))
        assert list(result.valid) == [False, False, False, False, True, True]


def test_the_first_of_equal_maxima(opened: Context) -> None:
    logits = np.zeros((3, 4000), np.float32)
    logits[0, [1, 5]] = 2
    logits[1, [3999, 1234]] = 2
    logits[2, 0] = -0.0
    result = _check(opened, logits, make_batch(3, temperature=0))
    assert list(result.token_ids) == [1, 1234, 0]


def test_rows_far_apart_and_no_rows(opened: Context) -> None:
    logits = random_logits(np.random.default_rng(1), 8, 600)
    _check(opened, logits[::2, :500], make_batch(4, uniform=0.3))
    _check(opened, logits[:, ::2], make_batch(8, uniform=0.3))
    assert len(sampling.sample(opened, logits[:0], make_batch(0)).token_ids) == 0


def test_vectors(opened: Context) -> None:
    for vector in sampling_vectors():
        result = sampling.sample(opened, vector.logits, vector.batch)
        for row, expected in enumerate(vector.expected):
            if expected.get("valid", True):
                assert result.token_ids[row] == expected["token_id"], vector.label
            else:
                assert not result.valid[row], vector.label


def test_token_logprobs_of_every_dtype() -> None:
    for vector in token_logprob_vectors():
        for dtype in (np.float32, ml_dtypes.bfloat16):
            logits = vector.logits.astype(dtype)
            result = sampling.token_logprobs(logits, vector.token_ids, vector.num_logprobs)
            expected = sampling_numpy.token_logprobs(
                logits.astype(np.float32), vector.token_ids, vector.num_logprobs
            )
            np.testing.assert_array_equal(result.logprobs, expected.logprobs)
            np.testing.assert_array_equal(result.top_ids, expected.top_ids)
