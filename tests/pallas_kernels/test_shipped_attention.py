"""What JAX's own attention is told: its reference, given our cache, is dense attention."""

from __future__ import annotations

import pytest

pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("octavo_tpu.kernels", reason="octavo-tpu is not installed")

import dataclasses

import numpy as np
from jax.experimental.pallas.ops.tpu.ragged_paged_attention import ref_ragged_paged_attention
from pallas_cases import Case, expected, make_batch

from octavo.testing.tolerances import tolerance_of
from octavo_tpu.kernels.layout import pack
from octavo_tpu.kernels.shipped import arguments, reason_against

CASE = Case(((37, 1), (0, 21), (3, 1)), heads=4, kv_heads=2, head_dim=128, padded_seqs=2)


@pytest.mark.parametrize(
    "case",
    [CASE, dataclasses.replace(CASE, soft_cap=3.0), dataclasses.replace(CASE, window=17)],
    ids=str,
)
def test_its_reference_on_our_cache_is_dense_attention(case):
    batch = make_batch(dataclasses.replace(case, window=None))
    rows, _ = pack(batch.cache.layout, batch.k, batch.v)
    blocks, offsets = np.divmod(batch.plan.slots, case.block_size)
    # It multiplies what it masks by zero: no NaN here.
    stored = np.nan_to_num(np.asarray(batch.cache.rows))
    stored[blocks, offsets] = rows
    cache = dataclasses.replace(batch.cache, rows=stored)
    assert reason_against(cache, case.params) is None
    positional, named = arguments(batch.q, cache, batch.plan, case.params)
    out = np.asarray(ref_ragged_paged_attention(*positional, **named))
    bounds = tolerance_of("float32")
    np.testing.assert_allclose(
        out, expected(case, batch), rtol=bounds.relative, atol=bounds.absolute
    )


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (dataclasses.replace(CASE, head_dim=64), "not of 64"),
        (dataclasses.replace(CASE, heads=9, kv_heads=3), "of 3 heads"),
        (dataclasses.replace(CASE, kv_dtype="int8", block_size=128), "no scale"),
        (dataclasses.replace(CASE, causal=False), "causal"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_says_what_it_lacks(case, reason):
    assert reason in reason_against(make_batch(case).cache, case.params)
