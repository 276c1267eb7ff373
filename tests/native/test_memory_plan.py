"""Placing results in memory: what lives at once keeps apart, and little is taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from octavo_cpu.native.memory_plan import Lifetime, place

lifetimes = st.builds(
    lambda first, length, size: Lifetime(first, first + length, size),
    st.integers(0, 30),
    st.integers(0, 10),
    st.integers(0, 500),
)


@given(st.lists(lifetimes, max_size=30))
def test_results_that_live_at_once_do_not_overlap(alive):
    offsets, total = place(alive)
    spans = [(at, at + one.num_bytes, one) for at, one in zip(offsets, alive, strict=True)]
    for index, (start, end, one) in enumerate(spans):
        assert start % 64 == 0
        assert end <= total
        for other_start, other_end, other in spans[:index]:
            at_once = one.first <= other.last and other.first <= one.last
            assert not at_once or end <= other_start or other_end <= start


def test_a_chain_of_results_takes_the_room_of_two():
    chain = [Lifetime(index, index + 1, 64) for index in range(100)]
    assert place(chain)[1] == 128
