"""The Pallas TPU kernels in the TPU interpreter: races are found, and what is unset is NaN."""

from __future__ import annotations

import functools

import pytest

pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("octavo_tpu.kernels", reason="octavo-tpu is not installed")

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax._src.pallas.mosaic.interpret import interpret_pallas_call
from pallas_cases import EAGER, INTERPRETER, Case, expected, make_batch

from octavo.api import UsageError
from octavo.testing.tolerances import tolerance_of
from octavo_tpu.kernels import ragged
from octavo_tpu.kernels.layout import KVLayout, unpack
from octavo_tpu.kernels.numbers import from_words
from octavo_tpu.kernels.paged_attention import paged_attention
from octavo_tpu.kernels.write import write_tokens

MIXED = ((37, 1), (0, 0), (0, 21), (70, 9), (3, 1))
LONG = ((300, 1), (3, 39), (0, 1))  # the first reads two chunks, the second takes two programs
PADDED = {"padded_tokens": 4, "padded_seqs": 2}
BLOCK128 = {"block_size": 128, "kv_dtype": "int8"}

QUICK = (
    Case(MIXED, **PADDED),
    Case(LONG, heads=3, kv_heads=1, head_dim=128, dtype="bfloat16", soft_cap=3.0, sinks=True),
    Case(MIXED, heads=8, kv_heads=1, head_dim=256, window=17, **PADDED),
    Case(MIXED, heads=2, kv_heads=2, head_dim=128, causal=False, window=20),
    Case(LONG, heads=9, kv_heads=3, dtype="bfloat16", kv_dtype="float8_e4m3fn", window=40),
    Case(MIXED, head_dim=80, kv_dtype="float8_e5m2", sinks=True),
    Case(LONG, head_dim=128, dtype="bfloat16", window=200, sinks=True, **BLOCK128, **PADDED),
)
SLOW = (
    Case(MIXED, causal=False, dtype="bfloat16", head_dim=128),
    Case(MIXED, heads=16, kv_heads=2, head_dim=128, dtype="bfloat16", **PADDED),
    Case(LONG, heads=4, kv_heads=1, head_dim=256, dtype="bfloat16", soft_cap=5.0, window=64),
    Case(LONG, head_dim=256, kv_dtype="float8_e4m3fn"),
    Case(LONG, heads=8, kv_heads=8, head_dim=32, dtype="bfloat16", block_size=32),
    Case(LONG, heads=10, kv_heads=5, head_dim=96, dtype="bfloat16", **BLOCK128),
    Case(MIXED, head_dim=64, window=17, causal=False, **BLOCK128),
    Case(((511, 1), (0, 1), (255, 1), (256, 1)), heads=14, kv_heads=2, dtype="bfloat16"),
    Case(((700, 120),), heads=8, kv_heads=2, head_dim=128, dtype="bfloat16", window=300),
    Case(((0, 1),), head_dim=128, sinks=True),
)


def no_races():
    """Of the kernel that was interpreted last."""
    return not interpret_pallas_call.races.races_found


def write(batch):
    """The cache after the kernel has written this step's tokens."""
    step = jax.jit(functools.partial(write_tokens, interpret=INTERPRETER))
    return jax.block_until_ready(step(batch.cache, batch.k, batch.v, batch.plan))


def attend(case, batch, cache, interpret=INTERPRETER):
    """Of all tokens, padding among them, in float64."""
    paged_attention.clear_cache()  # what a test has replaced must be traced
    step = jax.jit(functools.partial(paged_attention, params=case.params, interpret=interpret))
    out = step(batch.q, cache, batch.plan, sinks=batch.sinks)
    return np.asarray(out).astype(np.float64)


@pytest.mark.parametrize(
    "case", [*QUICK, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)], ids=str
)
def test_attention_of_what_was_written_is_dense_attention(case):
    batch = make_batch(case)
    cache = write(batch)
    assert no_races()
    out = attend(case, batch, cache)
    assert no_races()
    want = expected(case, batch)
    bounds = tolerance_of(case.dtype, case.stored)
    np.testing.assert_allclose(out[: len(want)], want, rtol=bounds.relative, atol=bounds.absolute)
    assert np.isfinite(out).all(), "padding's rows go through the layers that follow"


def test_a_block_table_too_large_for_scalar_memory_is_divided(monkeypatch):
    case = Case(((40, 1), (0, 9), (70, 3)), heads=1, kv_heads=1, head_dim=128, padded_seqs=1)
    batch = make_batch(case)
    row_bytes = batch.plan.block_table[0].nbytes
    monkeypatch.setattr("octavo_tpu.kernels.paged_attention._TABLE_BYTES", 2 * row_bytes)
    out, want = attend(case, batch, write(batch)), expected(case, batch)
    np.testing.assert_allclose(out, want, atol=tolerance_of("float32").absolute)
    monkeypatch.setattr("octavo_tpu.kernels.paged_attention._TABLE_BYTES", row_bytes - 1)
    with pytest.raises(UsageError, match="raise --block-size"):
        attend(case, batch, batch.cache)


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "int8"])
def test_a_write_changes_the_slots_of_its_tokens_and_nothing_else(kv_dtype):
    case = Case(((7, 1), (3, 21), (0, 2)), head_dim=96, block_size=128, kv_dtype=kv_dtype, **PADDED)
    batch = make_batch(case)
    every_block = np.arange(batch.cache.rows.shape[0])
    before = unpack(batch.cache, every_block)
    cache = write(batch)
    assert no_races()
    real = np.asarray(batch.plan.slots) >= case.block_size
    slots = np.asarray(batch.plan.slots)[real]
    bounds = tolerance_of(case.stored)
    for was, now, new in zip(before, unpack(cache, every_block), (batch.k, batch.v), strict=True):
        np.testing.assert_allclose(
            now[slots], np.asarray(new)[real], rtol=bounds.relative, atol=bounds.absolute
        )
        np.testing.assert_array_equal(
            np.delete(now, slots, axis=0)[case.block_size :],
            np.delete(was, slots, axis=0)[case.block_size :],
        )


class WithoutWaiting(ragged.Ragged):
    """Computes a chunk before it has arrived."""

    def _each_block(self, refs, item, chunk, act):
        if act is not ragged._wait:
            super()._each_block(refs, item, chunk, act)


class WithOneBuffer(ragged.Ragged):
    """Copies the next chunk to where this one is computed."""

    @property
    def halves(self):
        return 1


@pytest.mark.parametrize(
    ("kernel", "is_free"), [(ragged.Ragged, True), (WithoutWaiting, False), (WithOneBuffer, False)]
)
def test_copies_that_are_not_waited_for_are_found(monkeypatch, kernel, is_free):
    """Where copies happen at once, what a kernel computes is right: the detector alone finds it."""
    case = Case(((40, 1), (70, 1)), heads=1, kv_heads=1, head_dim=128)
    batch = make_batch(case)
    monkeypatch.setattr("octavo_tpu.kernels.paged_attention.Ragged", kernel)
    attend(case, batch, write(batch), EAGER)
    assert no_races() == is_free


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int8"])
def test_every_number_comes_out_of_its_word(dtype):
    scalar = np.dtype(getattr(ml_dtypes, dtype, dtype))
    parts = 4 // scalar.itemsize
    codes = np.arange(1 << min(16, 8 * scalar.itemsize), dtype=f"u{scalar.itemsize}")
    if scalar.itemsize == 4:
        codes = np.linspace(-9, 9, 999, dtype=np.float32).view(np.uint32)
    numbers = codes.view(scalar)
    numbers = numbers[np.isfinite(numbers.astype(np.float32))]
    normal = np.abs(numbers.astype(np.float32))
    numbers = numbers[(normal == 0) | (normal >= np.finfo(np.float32).tiny)]
    for part in range(parts):
        words = np.zeros((len(numbers), parts), scalar)
        words[:, part] = numbers
        words[:, part - 1 if parts > 1 else part] = numbers  # a neighbour must not matter
        packed = np.ascontiguousarray(words).view("<u4")
        out = from_words(jnp.asarray(packed), part, dtype)
        np.testing.assert_array_equal(np.asarray(out)[:, 0], numbers.astype(np.float32))


def test_rows_tile_without_gaps_and_hold_every_head_once():
    for dtype in ("float32", "bfloat16", "int8"):
        for kv_heads in (1, 2, 3, 4, 5, 8, 12, 16, 32):
            for head_dim in (32, 64, 80, 128, 256):
                layout = KVLayout(kv_heads, head_dim, dtype)
                heads = range(kv_heads)
                rows = {row for head in heads for row in layout.key_rows(head)}
                rows |= {row for head in heads for row in layout.value_rows(head)}
                assert rows == set(range(layout.used_rows))
                assert layout.words in (1, 2, 4) or layout.words % 8 == 0
                assert layout.used_rows <= layout.rows
