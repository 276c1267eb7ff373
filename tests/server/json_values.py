"""JSON of every kind, for what a server must refuse without falling over."""

from __future__ import annotations

from hypothesis import strategies as st


def any_json(names):
    """Any value; objects have some of these names, and others."""
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 2**40),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8),
    )
    return st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from(names) | st.text(max_size=5), inner, max_size=4),
        ),
        max_leaves=8,
    )
