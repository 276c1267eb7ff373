"""Philox against Random123's published vectors, and the layout of a draw."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from octavo.philox import philox4x32, uniforms
from octavo.testing.philox_reference import philox_words, reference_draw
from octavo.testing.vectors import read_vectors

UINT64 = st.integers(0, 2**64 - 1)
UINT32 = st.integers(0, 2**32 - 1)

KNOWN_ANSWERS = [
    (answer["counter"], answer["key"], answer["output"])
    for answer in read_vectors("philox")["known_answers"]  # Random123's
]


def words(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], np.uint64)[:, None]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter, key, expected):
    assert philox4x32(words(counter), words(key)).tolist() == words(expected).tolist()


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_reference_gives_the_known_answers(counter, key, expected):
    found = philox_words(words(counter)[:, 0].tolist(), words(key)[:, 0].tolist())
    assert found == words(expected)[:, 0].tolist()


def test_columns_are_independent_draws():
    counters = np.concatenate([words(counter) for counter, _, _ in KNOWN_ANSWERS], axis=1)
    keys = np.concatenate([words(key) for _, key, _ in KNOWN_ANSWERS], axis=1)
    expected = np.concatenate([words(output) for _, _, output in KNOWN_ANSWERS], axis=1)
    assert (philox4x32(counters, keys) == expected).all()


@given(seed=UINT64, request_key=UINT64, sample=UINT32, position=UINT32)
def test_layout_of_a_draw(seed, request_key, sample, position):
    draws = uniforms(
        np.array([seed], np.uint64),
        np.array([request_key], np.uint64),
        np.array([sample], np.uint32),
        np.array([position], np.uint32),
    )
    assert draws.dtype == np.float32
    assert draws.tolist() == [reference_draw(seed, request_key, sample, position) / 2**24]


def test_draws_fill_the_unit_interval_evenly():
    num_draws = 100_000
    keys = np.zeros(num_draws, np.uint64)
    draws = uniforms(keys + np.uint64(7), keys, keys, np.arange(num_draws))
    assert 0 <= draws.min() < 1e-3
    assert 1 - 1e-3 < draws.max() < 1
    expected = num_draws / 64
    statistic = ((np.histogram(draws, 64, (0, 1))[0] - expected) ** 2 / expected).sum()
    assert 30 < statistic < 110  # chi-square, 63 degrees of freedom: 1 in 10,000 either way
