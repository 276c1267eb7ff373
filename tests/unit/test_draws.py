"""Draws against the published generator's reference, however rows advance."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from octavo.draws import Draws
from octavo.testing.philox_reference import reference_draw

KEYS = [(7, 0, 0), (2**64 - 1, 5, 1), (0, 2**63, 2)]  # (seed, request key, sample index)


def expected(positions):
    draws = [reference_draw(*key, position) for key, position in zip(KEYS, positions, strict=True)]
    return [draw / 2**24 for draw in draws]


@given(
    first=st.lists(st.integers(0, 2**20), min_size=3, max_size=3),
    advances=st.lists(
        st.one_of(st.integers(0, 40).map(lambda n: (n, n, n)), st.tuples(*[st.integers(0, 3)] * 3)),
        max_size=8,
    ),
)
def test_a_number_depends_on_its_position_alone(first, advances):
    seeds, request_keys, sample_indices = zip(*KEYS, strict=True)
    draws = Draws(
        np.array(seeds, np.uint64),
        np.array(request_keys, np.uint64),
        np.array(sample_indices, np.int32),
    )
    positions = np.array(first, np.int32)
    for advance in [(0, 0, 0), *advances]:
        positions = positions + np.array(advance, np.int32)
        assert draws.at(positions).tolist() == expected(positions.tolist())
