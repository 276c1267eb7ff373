"""The element-wise kernels of every instruction set against float64, with odd sizes and strides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from kernel_case import DTYPES, context, run, runnable_variants
from numpy.typing import NDArray

from octavo.testing.tolerances import tolerance_of
from octavo_cpu.native.instruction import Element, Opcode

Matrix = NDArray[Any]

ELEMENTS = (Element.F32, Element.BF16, Element.F16)
DIMS = (1, 15, 64, 100, 577)
ROWS = (1, 3, 700)
EPS = 1e-5
_ERF = np.vectorize(math.erf)


@pytest.fixture(params=runnable_variants())
def variant(request: pytest.FixtureRequest) -> str:
    """One instruction set."""
    return str(request.param)


def _random(element: Element, *shape: int, padding: int = 0, seed: int = 0) -> Matrix:
    """Normal numbers whose rows lie ``padding`` elements apart."""
    rng = np.random.default_rng((seed, *shape))
    whole = rng.standard_normal((*shape[:-1], shape[-1] + padding)).astype(DTYPES[element])
    return whole[..., : shape[-1]]


def _stride(x: Matrix, axis: int = 0) -> int:
    return x.strides[axis] // x.itemsize


def _wide(x: Matrix) -> NDArray[np.float64]:
    return x.astype(np.float64)


def _check(result: Matrix, oracle: NDArray[np.float64], element: Element) -> None:
    bounds = tolerance_of(DTYPES[element].name)
    np.testing.assert_allclose(
        _wide(result), oracle, rtol=bounds.relative, atol=bounds.absolute, equal_nan=True
    )


def _silu(x: Matrix) -> Matrix:
    return x / (1 + np.exp(-x))


def _gelu_tanh(x: Matrix) -> Matrix:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _gelu_erf(x: Matrix) -> Matrix:
    return 0.5 * x * (1 + _ERF(x * math.sqrt(0.5)))


def _rms_norm(x: Matrix, weight: Matrix) -> Matrix:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight


ACTIVATIONS: Sequence[tuple[Opcode, int, float, Callable[[Matrix], Matrix]]] = [
    (Opcode.GELU, 1, 0, _gelu_tanh),
    (Opcode.GELU, 0, 0, _gelu_erf),
    (Opcode.SOFT_CAP, 0, 1.5, lambda x: 1.5 * np.tanh(x / 1.5)),
    (Opcode.SILU_MUL, 0, 0, _silu),
    (Opcode.GELU_MUL, 1, 0, _gelu_tanh),
    (Opcode.GELU_MUL, 0, 0, _gelu_erf),
]


@pytest.mark.parametrize("element", ELEMENTS)
def test_activations(variant: str, element: Element) -> None:
    with context(variant) as opened:
        for opcode, tanh, scalar, oracle in ACTIVATIONS:
            is_gate = opcode in {Opcode.SILU_MUL, Opcode.GELU_MUL}
            for rows, dim in ((1, 15), (3, 577), (700, 64)):
                x = _random(element, rows, 2 * dim if is_gate else dim, padding=3)
                out = np.empty((rows, dim), x.dtype)
                run(opened, opcode, element, [x, out], [rows, dim, _stride(x), tanh], [scalar])
                wide = _wide(x)
                ups = wide[:, dim:] if is_gate else 1
                _check(out, oracle(wide[:, :dim]) * ups, element)


def test_activations_are_good_to_a_few_units_in_the_last_place(variant: str) -> None:
    x = np.concatenate([np.linspace(-12, 12, 50_001), np.geomspace(1e-30, 1, 1001)])
    x = x.astype(np.float32)[None]
    wide, unit = _wide(x), 2.0**-23
    with context(variant) as opened:
        for opcode, tanh, oracle, bound in (
            (Opcode.SOFT_CAP, 0, np.tanh(wide), 3 * unit * np.abs(np.tanh(wide))),
            (Opcode.GELU, 0, _gelu_erf(wide), 2 * unit * np.abs(wide)),
            (Opcode.GELU, 1, _gelu_tanh(wide), 2 * unit * np.abs(wide)),
        ):
            out = np.empty_like(x)
            run(opened, opcode, Element.F32, [x, out], [1, x.size, x.size, tanh], [1.0])
            assert (np.abs(_wide(out) - oracle) <= bound).all(), opcode
        gate_up = np.concatenate([x, np.ones_like(x)], axis=1)
        run(opened, Opcode.SILU_MUL, Element.F32, [gate_up, out], [1, x.size, 2 * x.size])
    assert (np.abs(_wide(out) - _silu(wide)) <= 4 * unit * np.abs(_silu(wide))).all()


@pytest.mark.parametrize("element", ELEMENTS)
def test_activations_of_what_is_not_finite(variant: str, element: Element) -> None:
    x = np.array([[np.nan, np.inf, -np.inf, 0.0, -0.0, 1e4, -1e4]], DTYPES[element])
    with context(variant) as opened:
        for opcode, tanh, expected in (
            (Opcode.SOFT_CAP, 0, [np.nan, 2, -2, 0, -0.0, 2, -2]),
            (Opcode.GELU, 0, [np.nan, np.inf, np.nan, 0, -0.0, x[0, 5], -0.0]),
            (Opcode.GELU, 1, [np.nan, np.inf, np.nan, 0, -0.0, x[0, 5], -0.0]),
        ):
            out = np.empty_like(x)
            run(opened, opcode, element, [x, out], [1, 7, 7, tanh], [2.0])
            np.testing.assert_array_equal(out.astype(np.float32)[0], np.float32(expected))
            assert (np.signbit(out[0, 3:]) == np.signbit(x[0, 3:])).all()


@pytest.mark.parametrize("element", ELEMENTS)
def test_norms(variant: str, element: Element) -> None:
    with context(variant) as opened:
        for rows in ROWS:
            for dim in DIMS:
                x = _random(element, rows, 3, dim, padding=5)[:, :2]
                weight, bias = (_random(element, dim, seed=seed) for seed in (1, 2))
                out = np.empty((rows, 2, dim), x.dtype)
                sizes = [rows, 2, dim, _stride(x), _stride(x, 1)]
                wide = _wide(x)
                run(opened, Opcode.RMS_NORM, element, [x, weight, out], sizes, [EPS])
                _check(out, _rms_norm(wide, _wide(weight)), element)
                centred = wide - wide.mean(-1, keepdims=True)
                for shift in (bias, None):
                    operands = [x, weight, shift, out]
                    run(opened, Opcode.LAYER_NORM, element, operands, sizes, [EPS])
                    added = 0 if shift is None else _wide(shift)
                    _check(out, _rms_norm(centred, _wide(weight)) + added, element)


@pytest.mark.parametrize("element", ELEMENTS)
def test_add_rms_norm_normalises_the_rounded_total(variant: str, element: Element) -> None:
    with context(variant) as opened:
        for rows in ROWS:
            for dim in DIMS:
                x = _random(element, rows, dim, padding=2)
                residual = _random(element, rows, dim, padding=7, seed=1)
                weight = _random(element, dim, seed=2)
                out, total, alone = (np.empty((rows, dim), x.dtype) for _ in range(3))
                sizes = [rows, dim, _stride(x), _stride(residual)]
                operands = [x, residual, weight, out, total]
                run(opened, Opcode.ADD_RMS_NORM, element, operands, sizes, [EPS])
                np.testing.assert_array_equal(total, x + residual)
                sizes = [rows, 1, dim, dim, 0]
                run(opened, Opcode.RMS_NORM, element, [total, weight, alone], sizes, [EPS])
                np.testing.assert_array_equal(out, alone)


def test_norms_of_what_is_not_finite(variant: str) -> None:
    x = np.ones((2, 40), np.float32)
    x[0, 3], x[1, 39] = np.nan, np.inf
    weight, out = np.ones(40, np.float32), np.zeros_like(x)
    with context(variant) as opened:
        run(opened, Opcode.RMS_NORM, Element.F32, [x, weight, out], [2, 1, 40, 40, 0], [0.0])
    assert np.isnan(out[0]).all()
    assert np.isnan(out[1, 39])
    assert (out[1, :39] == 0).all()


@pytest.mark.parametrize("element", ELEMENTS)
def test_arithmetic_rounds_as_numpy_does(variant: str, element: Element) -> None:
    cases = ((Opcode.ADD, np.add), (Opcode.SUBTRACT, np.subtract), (Opcode.MULTIPLY, np.multiply))
    with context(variant) as opened:
        for rows, dim in ((1, 1), (3, 577), (700, 100)):
            a = _random(element, rows, dim, padding=3)
            b = _random(element, rows, dim, padding=1, seed=1)
            out = np.empty((rows, dim), a.dtype)
            for opcode, oracle in cases:
                for other, b_stride in ((b, _stride(b)), (b[:1], 0)):
                    sizes = [rows, dim, _stride(a), b_stride]
                    run(opened, opcode, element, [a, other, out], sizes)
                    np.testing.assert_array_equal(out, oracle(a, other))
                run(opened, opcode, element, [a, None, out], [rows, dim, _stride(a)], [0.75])
                np.testing.assert_array_equal(out, oracle(a, a.dtype.type(0.75)))


@pytest.mark.parametrize("element", ELEMENTS)
def test_rows_move_as_they_are(variant: str, element: Element) -> None:
    with context(variant) as opened:
        for rows, dim in ((1, 1), (3, 577), (900, 40)):
            table = _random(element, 50, dim)
            padded = _random(element, 50, dim, padding=9)
            ids = np.random.default_rng(0).integers(0, 50, rows).astype(np.int32)
            out = np.empty((rows, dim), table.dtype)
            run(opened, Opcode.EMBED, element, [table, ids, out], [rows, dim, 50])
            np.testing.assert_array_equal(out, table[ids])
            sizes = [rows, dim, _stride(padded), 50]
            run(opened, Opcode.TAKE_ROWS, element, [padded, ids, out], sizes)
            np.testing.assert_array_equal(out, padded[ids])
            view = _random(element, rows, 5, dim, padding=2)[:, 1:4]
            copied = np.empty((rows, 3, dim), view.dtype)
            sizes = [rows, 3, dim, _stride(view), _stride(view, 1)]
            run(opened, Opcode.COPY, element, [view, copied], sizes)
            np.testing.assert_array_equal(copied, view)


def test_rows_out_of_range_stay_inside(variant: str) -> None:
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    ids = np.array([-1, -(2**31), 3, 2**31 - 1], np.int32)
    out = np.empty((4, 4), np.float32)
    with context(variant) as opened:
        run(opened, Opcode.EMBED, Element.F32, [table, ids, out], [4, 4, 3])
        np.testing.assert_array_equal(out, table[[0, 0, 2, 2]])
        run(opened, Opcode.TAKE_ROWS, Element.F32, [table, ids, out], [4, 4, 4, 3])
        np.testing.assert_array_equal(out, table[[0, 0, 2, 2]])


def _rope_table(
    variant: str,
    lens: NDArray[np.int32],
    kind: int,
    *,
    half: int = 24,
    attention_factor: float = 1.0,
) -> tuple[Matrix, Matrix]:
    """(cos, sin) for the last positions of contexts of ``lens``, trained for 4096 tokens."""
    frequencies = (10_000.0 ** (-np.arange(half) / half)).astype(np.float32)
    cos, sin = np.empty((2, len(lens), half), np.float32)
    operands = [lens - 1, lens, frequencies, frequencies / 4, cos, sin]
    with context(variant) as opened:
        sizes, scalars = [len(lens), half, kind, 4096], [attention_factor, 10_000.0, 2.0]
        run(opened, Opcode.ROPE_TABLE, Element.BF16, operands, sizes, scalars)
    return cos, sin


def test_rope_table_is_exact_at_distant_positions(variant: str) -> None:
    lens = np.array([1, 2, 17, 4096, 4097, 100_001, 1_000_000, *range(5000, 5100)], np.int32)
    for half in (24, 5):
        frequencies = (10_000.0 ** (-np.arange(half) / half)).astype(np.float32)
        angles = np.outer(lens - 1.0, _wide(frequencies))
        cos, sin = _rope_table(variant, lens, 0, half=half, attention_factor=0.75)
        np.testing.assert_allclose(cos, 0.75 * np.cos(angles), rtol=0, atol=1.2e-7)
        np.testing.assert_allclose(sin, 0.75 * np.sin(angles), rtol=0, atol=1.2e-7)


def test_rope_table_of_kinds_that_look_at_the_context(variant: str) -> None:
    half, lens = 24, np.array([4096, 4097, 9000, 9000, 300], np.int32)
    frequencies = _wide((10_000.0 ** (-np.arange(half) / half)).astype(np.float32))
    is_long = (lens > 4096)[:, None]
    cos, _ = _rope_table(variant, lens, 2)
    chosen = np.where(is_long, frequencies / 4, frequencies)
    np.testing.assert_allclose(cos, np.cos((lens - 1.0)[:, None] * chosen), rtol=0, atol=1.2e-7)
    cos, _ = _rope_table(variant, lens, 1)
    stretch = np.maximum(2.0 * lens / 4096 - 1.0, 1.0)
    bases = 10_000.0 * stretch ** (48 / 46)
    chosen = np.where(is_long, bases[:, None] ** (-np.arange(half) / half), frequencies)
    np.testing.assert_allclose(cos, np.cos((lens - 1.0)[:, None] * chosen), rtol=0, atol=1e-3)


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize(("head_dim", "half"), [(64, 32), (40, 20), (64, 8), (10, 3)])
def test_rope(variant: str, element: Element, head_dim: int, half: int) -> None:
    with context(variant) as opened:
        for tokens, heads in ((1, 3), (300, 2)):
            x = _random(element, tokens, heads + 1, head_dim, padding=4)[:, :heads]
            angles = np.random.default_rng(1).random((tokens, half)) * 6
            cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
            out = np.empty((tokens, heads, head_dim), x.dtype)
            sizes = [tokens, heads, head_dim, _stride(x), _stride(x, 1), half]
            run(opened, Opcode.ROPE, element, [x, cos, sin, out], sizes)
            first, second = _wide(x[..., :half]), _wide(x[..., half : 2 * half])
            c, s = np.cos(angles)[:, None], np.sin(angles)[:, None]
            _check(out[..., :half], first * c - second * s, element)
            _check(out[..., half : 2 * half], second * c + first * s, element)
            np.testing.assert_array_equal(out[..., 2 * half :], x[..., 2 * half :])
