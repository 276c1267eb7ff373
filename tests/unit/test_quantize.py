"""Weights quantised at load: the formats' own decoders give them back, and who may ask for it."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType, dequantize

from octavo.config import EngineConfig
from octavo.errors import UsageError
from octavo.loading.dummy import DummySource
from octavo.loading.gguf_quants import QUANT_TYPES
from octavo.loading.packing import Packing, packing_for
from octavo.loading.quantize import quantize

TYPES = {quant.dtype: quant for quant in QUANT_TYPES.values()}
BOTH = ("gguf:Q8_0", "gguf:Q4_1")


def decoded(tensor):
    quant = TYPES[tensor.scheme]
    weights = np.empty((tensor.data.size // quant.block_bytes, quant.block_size), np.float32)
    quant.unpack(tensor.data.reshape(-1, quant.block_bytes), weights)
    return weights.reshape(tensor.shape)


def nearest_grid_error(weight, levels, importance=1.0):
    """Squared error of each block on the plain grid from its least to its largest weight."""
    blocks = weight.reshape(-1, 32).astype(np.float64)
    lowest, highest = blocks.min(1, keepdims=True), blocks.max(1, keepdims=True)
    step = (highest - lowest) / (levels - 1)
    error = np.square(np.rint((blocks - lowest) / step) * step + lowest - blocks)
    return (error.reshape(weight.shape) * importance).reshape(-1, 32).sum(1)


def test_int8_is_within_half_a_step():
    weight = np.random.default_rng(0).standard_normal((37, 96)).astype(np.float32)
    error = np.abs(decoded(quantize(weight, "gguf:Q8_0")) - weight).reshape(-1, 32)
    steps = np.abs(weight).reshape(-1, 32).max(1) / 127
    assert np.all(error.max(1) <= steps * (0.5 + 127 * 2**-11))


def test_int4_is_better_than_the_plain_grid():
    weight = np.random.default_rng(1).standard_normal((2100, 64)).astype(np.float32)
    error = np.square(decoded(quantize(weight, "gguf:Q4_1")) - weight).reshape(-1, 32).sum(1)
    plain = nearest_grid_error(weight, 16)
    assert error.sum() < 0.95 * plain.sum()
    assert np.mean(error <= plain * 1.01) > 0.99


@pytest.mark.parametrize("scheme", BOTH)
@pytest.mark.parametrize(
    "row", [np.zeros(32), np.full(32, -3.5), np.r_[np.zeros(31), 1e-7], np.r_[np.zeros(31), 3e4]]
)
def test_blocks_without_spread_or_with_an_outlier_stay_finite(scheme, row):
    weight = row.astype(np.float32)[None]
    result = decoded(quantize(weight, scheme))
    assert np.all(np.isfinite(result))
    np.testing.assert_allclose(result, weight, atol=max(1e-6, np.abs(row).max() * 2e-3))


def weighted_error(weight, importance, packed):
    """The squared error of each block, unpacked by the gguf package, times what it counts."""
    error = dequantize(packed.data, GGMLQuantizationType.Q4_1).astype(np.float64) - weight
    return (np.square(error) * importance).reshape(-1, 32).sum(1)


@pytest.mark.parametrize("outlier", [1, 30, 1e6])
def test_int4_looks_at_what_counts(outlier):
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((700, 128)).astype(np.float32)
    importance = rng.exponential(1, 128)
    importance[[5, 40]] *= outlier
    error = weighted_error(weight, importance, quantize(weight, "gguf:Q4_1", importance))
    blind = weighted_error(weight, importance, quantize(weight, "gguf:Q4_1"))
    plain = nearest_grid_error(weight, 16, importance)
    assert error.sum() < 0.75 * plain.sum()
    assert error.sum() < 0.9 * blind.sum()
    assert np.mean(error <= plain) > 0.97


@pytest.mark.parametrize("importance", [np.zeros(64), np.full(64, np.nan), np.full(64, np.inf)])
def test_an_importance_that_says_nothing_is_not_listened_to(importance):
    weight = np.random.default_rng(4).standard_normal((8, 64)).astype(np.float32)
    quantized = quantize(weight, "gguf:Q4_1", importance.astype(np.float32))
    np.testing.assert_array_equal(quantized.data, quantize(weight, "gguf:Q4_1").data)


def test_a_grid_is_found_again():
    """Weights that lie on a grid of four bits come back as they were."""
    rng = np.random.default_rng(2)
    codes = np.stack([rng.permutation(np.r_[np.arange(16), np.arange(16)]) for _ in range(64)])
    scales = rng.uniform(0.5, 1, (64, 1)).astype(np.float16).astype(np.float32)
    weight = (codes * scales - 4).astype(np.float32)
    np.testing.assert_allclose(decoded(quantize(weight, "gguf:Q4_1")), weight, atol=1e-6)


def test_who_gets_which_packing():
    packing = Packing(BOTH, "int4")
    assert packing.made(64, is_fine=False) == "gguf:Q4_1"
    assert packing.made(64, is_fine=True) == "gguf:Q8_0"
    assert packing.made(48, is_fine=False) is None
    assert Packing(BOTH).made(64, is_fine=False) is None
    assert packing.apply(np.ones((2, 48), np.float32), is_fine=False).dtype == np.float32


def test_a_backend_without_the_packing_is_refused():
    with pytest.raises(UsageError, match=r"takes none packed.*leave it out"):
        packing_for("int8", (), DummySource({}))
    with pytest.raises(UsageError, match="use one of int8"):
        packing_for("int4", ("gguf:Q8_0",), DummySource({}))
    assert packing_for("int4", BOTH, DummySource({})) == Packing(BOTH, "int4")


class PackedSource:
    """A checkpoint with one packed tensor."""

    def names(self):
        return ["a", "b"]

    def dtype(self, name):
        return "gguf:Q4_K" if name == "a" else "float32"


def test_a_packed_checkpoint_is_not_quantised_again():
    with pytest.raises(UsageError, match=r"quantised already \(gguf:Q4_K\)"):
        packing_for("int8", BOTH, PackedSource())
    assert packing_for(None, BOTH, PackedSource()) == Packing(BOTH)


def test_an_unknown_mode_lists_the_known_ones():
    with pytest.raises(UsageError, match="use one of None, int8, int4"):
        EngineConfig(model="m", quantization="int3")
