"""Integer weights against exact powers, and two-word sums against Python's integers."""

from __future__ import annotations

import array_api_compat.numpy as xp
import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from octavo.ops.sampling_weights import (
    LIMIT_STEPS,
    STEP_BITS,
    UNIT,
    cumulative,
    fraction_of,
    less,
    steps_per_logit,
    to_units,
    weights,
    weights_of_steps,
)

ALL_STEPS = np.arange(LIMIT_STEPS + 1, dtype=np.int32)
TOTALS = st.integers(0, 2**43 - 1)


def wide(value: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array([value >> 12], np.int32), np.array([value & 0xFFF], np.int32)


def narrow(value: tuple[np.ndarray, np.ndarray]) -> list[int]:
    return (value[0].astype(object) * 4096 + value[1]).tolist()


def test_weights_are_powers_of_two_within_their_rounding():
    found = weights_of_steps(ALL_STEPS)
    exact = UNIT * 2.0 ** -(ALL_STEPS / 2**STEP_BITS)
    assert found.dtype == np.int32
    assert found[0] == UNIT
    assert found[-1] == 0
    assert (np.abs(found - exact) <= 0.5 + 3e-5 * exact).all()


def test_a_weight_never_grows_as_the_logit_falls():
    assert (np.diff(weights_of_steps(ALL_STEPS)) <= 0).all()


def test_weights_of_logits_follow_the_softmax():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (4, 5000)).astype(np.float32)
    temperature = np.array([[0.3], [0.7], [1], [2]], np.float32)
    largest = logits.max(axis=1, keepdims=True)
    found = weights(xp, logits, largest, steps_per_logit(xp, temperature))
    exact = UNIT * np.exp((logits.astype(float) - largest) / temperature)
    assert (np.abs(found - exact) <= 0.5 + 6e-5 * exact).all()


def test_weights_of_logits_out_of_reach_are_0():
    logits = np.array([[5, -np.inf, np.nan, -1e30, -20]], np.float32)
    found = weights(xp, logits, np.float32([[5]]), np.float32([[2**14]]))
    assert found.tolist() == [[UNIT, 0, 0, 0, 1]]  # 25 halvings still round to one unit


@given(TOTALS, st.integers(0, 2**24))
def test_fraction_of(total, units):
    found = fraction_of(wide(total), np.array([units], np.int32))
    assert narrow(found) == [total * units // 2**24]


@given(TOTALS, TOTALS)
def test_less(left, right):
    assert less(wide(left), wide(right)).tolist() == [left < right]


def test_cumulative_at_its_limits():
    largest_vocabulary = np.full((1, 500_000), UNIT, np.int32)
    mixed = np.random.default_rng(0).integers(0, UNIT, (3, 5000), np.int32, endpoint=True)
    for values in (largest_vocabulary, mixed):
        high, low = cumulative(xp, values)
        assert high.min() >= 0
        assert low.min() >= 0
        exact = np.cumsum(values, axis=1, dtype=np.int64)
        assert (high.astype(np.int64) * 4096 + low == exact).all()


def test_units_round_up():
    fractions = np.array([0, 2**-30, 2**-24, 0.5, 1 - 2**-24, 1], np.float32)
    assert to_units(xp, fractions).tolist() == [0, 1, 1, 2**23, 2**24 - 1, 2**24]
