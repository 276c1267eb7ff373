"""Random weights: any shape, the same every time, of a size that keeps activations sane."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from octavo.loading import ShapelessSource, TensorSource
from octavo.loading.dummy import DummySource

NAME = "model.layers.0.self_attn.q_proj.weight"


def test_it_is_a_shapeless_source_and_real_sources_are_not():
    assert isinstance(DummySource({}), ShapelessSource)
    assert not hasattr(TensorSource, "read_shaped")


def test_values_depend_on_seed_and_name_only():
    first = DummySource({}, seed=7)
    expected = first.read_shaped(NAME, (40, 24), "float32")
    second = DummySource({}, seed=7)
    second.read_shaped("another", (9, 9), "float32")
    np.testing.assert_array_equal(second.read_shaped(NAME, (40, 24), "float32"), expected)
    for source, name in ((DummySource({}, seed=8), NAME), (second, NAME + "x")):
        assert (source.read_shaped(name, (40, 24), "float32") != expected).mean() > 0.99


@pytest.mark.parametrize("shape", [(64, 48), (1, 7), (3000, 700)])
def test_a_projection_keeps_the_size_of_activations(shape):
    weights = DummySource({}).read_shaped(NAME, shape, "float32")
    assert weights.shape == shape
    activations = np.random.default_rng(0).standard_normal((200, shape[1])).astype(np.float32)
    if shape[0] > 1:
        assert 0.8 < (activations @ weights.T).std() < 1.25
    assert np.isfinite(weights).all()


def test_rows_beyond_the_period_still_differ():
    weights = DummySource({}).read_shaped(NAME, (3000, 700), "float32")  # two periods
    assert len(np.unique(weights[:, 0])) > 2900
    assert np.linalg.matrix_rank(weights[::40, :75]) == 75


def test_norms_are_about_one_and_biases_about_zero():
    source = DummySource({})
    norm = source.read_shaped("model.norm.weight", (500,), "float32")
    bias = source.read_shaped("h.0.attn.c_attn.bias", (500,), "float32")
    assert 0.9 < norm.mean() < 1.1
    assert 0 < norm.std() < 0.1
    assert abs(bias).max() < 0.2


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_other_dtypes_are_the_rounded_float32(dtype):
    source = DummySource({})
    full = source.read_shaped(NAME, (30, 20), "float32")
    np_dtype = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[dtype]
    result = source.read_shaped(NAME, (30, 20), dtype)
    assert result.dtype == np_dtype
    np.testing.assert_array_equal(result, full.astype(np_dtype))


def test_out_is_filled_even_where_it_is_not_contiguous():
    source = DummySource({})
    expected = source.read_shaped(NAME, (30, 20), "float32")
    wide = np.zeros((30, 50), np.float32)
    part = wide[:, 10:30]
    assert source.read_shaped(NAME, (30, 20), "float32", part) is part
    np.testing.assert_array_equal(part, expected)
    assert not wide[:, :10].any()
    with pytest.raises(ValueError, match="differs"):
        source.read_shaped(NAME, (20, 30), "float32", part)


def test_what_a_dummy_checkpoint_has():
    source = DummySource({"tie_word_embeddings": True})
    assert source.has(NAME)
    assert not source.has("model.layers.0.self_attn.q_proj.bias")
    assert not source.has("lm_head.weight")
    assert DummySource({"tie_word_embeddings": False}).has("lm_head.weight")
    assert DummySource({}).has("lm_head.weight")
