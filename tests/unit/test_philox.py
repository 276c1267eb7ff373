"""Philox against Random123's published vectors, and the layout of a draw."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from octavo.philox import philox4x32, uniforms

UINT64 = st.integers(0, 2**64 - 1)
UINT32 = st.integers(0, 2**32 - 1)

# Random123, tests/kat_vectors: "philox4x32 10", counter, key, output.
KNOWN_ANSWERS = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def words(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], np.uint64)[:, None]


def philox_by_hand(counter: list[int], key: list[int]) -> list[int]:
    """The paper's definition on Python integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 2**32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter, key, expected):
    assert philox4x32(words(counter), words(key)).tolist() == words(expected).tolist()


def test_columns_are_independent_draws():
    counters = np.concatenate([words(counter) for counter, _, _ in KNOWN_ANSWERS], axis=1)
    keys = np.concatenate([words(key) for _, key, _ in KNOWN_ANSWERS], axis=1)
    expected = np.concatenate([words(output) for _, _, output in KNOWN_ANSWERS], axis=1)
    assert (philox4x32(counters, keys) == expected).all()


@given(seed=UINT64, request_key=UINT64, sample=UINT32, position=UINT32)
def test_layout_of_a_draw(seed, request_key, sample, position):
    counter = [position, sample, request_key % 2**32, request_key // 2**32]
    first_word = philox_by_hand(counter, [seed % 2**32, seed // 2**32])[0]
    draws = uniforms(
        np.array([seed], np.uint64),
        np.array([request_key], np.uint64),
        np.array([sample], np.uint32),
        np.array([position], np.uint32),
    )
    assert draws.dtype == np.float32
    assert draws.tolist() == [(first_word >> 8) / 2**24]


def test_draws_fill_the_unit_interval_evenly():
    num_draws = 100_000
    keys = np.zeros(num_draws, np.uint64)
    draws = uniforms(keys + np.uint64(7), keys, keys, np.arange(num_draws))
    assert 0 <= draws.min() < 1e-3
    assert 1 - 1e-3 < draws.max() < 1
    expected = num_draws / 64
    statistic = ((np.histogram(draws, 64, (0, 1))[0] - expected) ** 2 / expected).sum()
    assert 30 < statistic < 110  # chi-square, 63 degrees of freedom: 1 in 10,000 either way
