"""Products with weights of 16 and 32 bits, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_case import DTYPES, context, run, runnable_variants
from numpy.typing import NDArray

from octavo.testing.tolerances import TOLERANCES
from octavo_cpu.native.instruction import Element, Opcode, Scheme
from octavo_cpu.native.library import Context, PackedLinear

pytestmark = pytest.mark.parametrize("variant", runnable_variants())

SCHEMES = {Scheme.F32: Element.F32, Scheme.BF16: Element.BF16, Scheme.F16: Element.F16}
DTYPE_NAMES = {Element.F32: "float32", Element.BF16: "bfloat16", Element.F16: "float16"}
# rows, out_features, in_features: whole panels and tiles, and what is left of them.
SHAPES = [
    (1, 1, 1),
    (2, 63, 65),
    (3, 65, 63),
    (7, 64, 64),
    (25, 130, 515),
    (129, 17, 576),
    (5, 200, 1),
    (400, 33, 31),
]


def multiply(
    opened: Context, element: Element, x: NDArray[Any], weight: PackedLinear
) -> NDArray[Any]:
    """``x @ weight.T``; rows of ``x`` may be strided. Nothing behind the result may be touched."""
    size = len(x) * weight.out_features
    out = np.full(size + 64, 77, x.dtype)
    sizes = [len(x), x.strides[0] // x.itemsize, weight.in_features, weight.out_features]
    run(opened, Opcode.LINEAR, element, [x, weight, out], sizes)
    assert np.all(out[size:] == 77)
    return out[:size].reshape(len(x), weight.out_features)


def random_weight(
    scheme: Scheme, out_features: int, in_features: int, rng: np.random.Generator
) -> NDArray[Any]:
    """A weight whose rows have NaN behind them."""
    weight = np.full((out_features, in_features + 3), np.nan, DTYPES[SCHEMES[scheme]])
    weight[:, :in_features] = rng.standard_normal((out_features, in_features))
    return weight[:, :in_features]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("element", DTYPE_NAMES)
@pytest.mark.parametrize("has_bias", [False, True])
def test_product_is_that_of_float64(
    variant: str, scheme: Scheme, element: Element, has_bias: bool
) -> None:
    rng = np.random.default_rng(3)
    bounds = TOLERANCES[DTYPE_NAMES[element]]
    with context(variant) as opened:
        for num_rows, out_features, in_features in SHAPES:
            rows = random_weight(scheme, out_features, in_features, rng)
            bias = rng.standard_normal(out_features).astype(np.float32) if has_bias else None
            x = np.full((num_rows, in_features + 5), np.nan, DTYPES[element])
            x[:, :in_features] = rng.standard_normal((num_rows, in_features))
            x = x[:, :in_features]
            weight = opened.pack(scheme, rows, out_features, in_features, bias)
            result = multiply(opened, element, x, weight).astype(np.float64)
            expected = x.astype(np.float64) @ rows.astype(np.float64).T
            expected += 0 if bias is None else bias
            scaled = bounds.scaled(float(np.sqrt(in_features)))
            bound = scaled.absolute + scaled.relative * np.abs(expected)
            assert np.all(np.abs(result - expected) <= bound), (num_rows, out_features, in_features)


@pytest.mark.parametrize("in_features", [576, 3001])
@pytest.mark.parametrize(
    ("element", "scheme"),
    [
        (Element.BF16, Scheme.BF16),
        (Element.F32, Scheme.F32),
        (Element.F16, Scheme.F16),
        (Element.F32, Scheme.BF16),
    ],
)
def test_row_is_the_same_to_the_bit_in_any_batch_on_any_threads(
    variant: str, element: Element, scheme: Scheme, in_features: int
) -> None:
    rng = np.random.default_rng(7)
    rows = random_weight(scheme, 200, in_features, rng)
    x = rng.standard_normal((254, in_features)).astype(DTYPES[element])
    bits = []
    for num_threads in (1, 3):
        with context(variant, num_threads) as opened:
            weight = opened.pack(scheme, rows, 200, in_features, None)
            whole = multiply(opened, element, x, weight)
            alone = [multiply(opened, element, x[i : i + 1], weight) for i in range(0, 254, 9)]
            cuts = np.split(np.arange(254), np.cumsum([1, 2, 5, 6, 7, 64, 129]))
            parts = [multiply(opened, element, x[cut], weight) for cut in cuts if len(cut)]
            bits += [whole.tobytes(), np.concatenate(parts).tobytes()]
            assert np.concatenate(alone).tobytes() == np.ascontiguousarray(whole[::9]).tobytes()
    assert len(set(bits)) == 1


def test_sum_has_every_term_once(variant: str) -> None:
    """Small whole numbers are exact: a term that is lost or counted twice shows."""
    rng = np.random.default_rng(5)
    rows = rng.integers(-8, 9, (70, 2049)).astype(DTYPES[Element.BF16])
    x = rng.integers(-8, 9, (11, 2049)).astype(np.float32)
    with context(variant) as opened:
        weight = opened.pack(Scheme.BF16, rows, 70, 2049, None)
        result = multiply(opened, Element.F32, x, weight)
    np.testing.assert_array_equal(result, x @ rows.astype(np.float32).T)
