"""Which dtype caches are stored in."""

from __future__ import annotations

import pytest

from octavo.dtype_choice import choose_cache_dtype
from octavo.errors import UsageError

_DTYPES = ("bfloat16", "float32", "float16")


@pytest.mark.parametrize(
    ("wanted", "compute_dtype", "cache_dtypes", "chosen"),
    [
        ("auto", "auto", ("float32", "bfloat16"), "bfloat16"),
        ("auto", "float32", ("bfloat16", "float32"), "float32"),
        ("auto", "half", _DTYPES, "float16"),
        ("auto", "float16", ("bfloat16", "int8"), "bfloat16"),  # it stores no float16
        ("int8", "float32", ("bfloat16", "int8"), "int8"),
    ],
)
def test_a_cache_has_the_compute_dtype_unless_told_or_unable(
    wanted, compute_dtype, cache_dtypes, chosen
):
    assert choose_cache_dtype(wanted, compute_dtype, _DTYPES, cache_dtypes) == chosen


def test_a_cache_dtype_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="kv_cache_dtype='int8'"):
        choose_cache_dtype("int8", "auto", _DTYPES, ("bfloat16",))
