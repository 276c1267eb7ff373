"""Vectors under the kernels: conversions of 16-bit floats to the bit, exp over its range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_case import DTYPES, context, run, runnable_variants
from numpy.typing import NDArray

from octavo_cpu.native.instruction import Element, Opcode
from octavo_cpu.native.library import Context

HALVES = (Element.BF16, Element.F16)
_FLUSHED = np.float32(2.0**-126)  # bfloat16's smallest normal number


@pytest.fixture(params=runnable_variants())
def opened(request: pytest.FixtureRequest) -> Any:
    """One thread with one instruction set."""
    with context(request.param, 1) as made:
        yield made


def _every_number(element: Element) -> NDArray[Any]:
    return np.arange(65536, dtype=np.uint16).view(DTYPES[element])[None]


def _combine(
    opened: Context, opcode: Opcode, element: Element, a: NDArray[Any], b: NDArray[Any]
) -> NDArray[Any]:
    out = np.empty_like(a)
    rows, dim = a.shape
    run(opened, opcode, element, [a, b, out], [rows, dim, dim, dim])
    return out


def _check(result: NDArray[Any], expected: NDArray[Any], element: Element) -> None:
    """Equal, zeros by sign and NaN by being one; some processors have no subnormal bfloat16."""
    wide, wanted = result.astype(np.float32), expected.astype(np.float32)
    if element is Element.BF16:
        flushed = (wide == 0) & (np.abs(wanted) <= _FLUSHED)
        wide = np.where(flushed, wanted, wide)
    np.testing.assert_array_equal(wide, wanted)
    known = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(wide[known]), np.signbit(wanted[known]))


@pytest.mark.parametrize("element", HALVES)
def test_every_16_bit_float_survives(opened: Context, element: Element) -> None:
    numbers = _every_number(element)
    minus_zeros = np.full_like(numbers, -0.0)
    _check(_combine(opened, Opcode.ADD, element, numbers, minus_zeros), numbers, element)
    # The same through vectors that are not full.
    few = np.ascontiguousarray(numbers.reshape(-1, 4)[:, :3])
    minus_zeros = np.full_like(few, -0.0)
    _check(_combine(opened, Opcode.ADD, element, few, minus_zeros), few, element)


@pytest.mark.parametrize("element", HALVES)
def test_rounding_to_16_bits(opened: Context, element: Element) -> None:
    """A product of two 16-bit floats is exact in float32: what is seen is its rounding."""
    rng = np.random.default_rng(0)
    a, b = (_every_number(element).repeat(4, axis=0).ravel() for _ in range(2))
    rng.shuffle(a)
    with np.errstate(all="ignore"):
        expected = (a.astype(np.float32) * b.astype(np.float32)).astype(a.dtype)[None]
    _check(_combine(opened, Opcode.MULTIPLY, element, a[None], b[None]), expected, element)


def test_float16_rounds_ties_to_even_and_overflows_at_65520(opened: Context) -> None:
    a = np.array([[1, 1, 2048, 2050, 65504, 65504, 2**-14]], np.float16)
    b = np.array([[2**-11, 3 * 2**-11, 1, 1, 15.99, 16, -(2**-24)]], np.float16)
    expected = np.array([[1, 1 + 2**-9, 2048, 2052, 65504, np.inf, 1023 * 2**-24]], np.float16)
    _check(_combine(opened, Opcode.ADD, Element.F16, a, b), expected, Element.F16)


def test_exp_over_its_range(opened: Context) -> None:
    """Through SiLU: far below 0 it is x e^x, down to where e^x leaves the normal numbers."""
    x = np.concatenate([-np.linspace(0, 87.3, 200_001), np.linspace(0, 100, 5001)])
    x = x.astype(np.float32)
    gate_up = np.concatenate([x, np.ones_like(x)])[None]
    out = np.empty((1, x.size), np.float32)
    run(opened, Opcode.SILU_MUL, Element.F32, [gate_up, out], [1, x.size, 2 * x.size])
    wide = x.astype(np.float64)
    oracle = wide / (1 + np.exp(-wide))
    assert (np.abs(out[0] - oracle) <= 4 * 2.0**-23 * np.abs(oracle)).all()
    beyond = np.float32([[-88, -1000, -np.inf, 1, 1, 1]])
    result = np.empty((1, 3), np.float32)
    run(opened, Opcode.SILU_MUL, Element.F32, [beyond, result], [1, 3, 6])
    np.testing.assert_array_equal(result, np.float32([[-0.0, -0.0, np.nan]]))
