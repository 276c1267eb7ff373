"""Integer probabilities inside kernels; what they are, and why, stands in the core's sampler.

The weight of a token whose logit is d below the row's largest, at temperature T:

    steps  = round(min(d * (2**14 * log2(e) / T), 26 * 2**14))       float32, half to even
    weight = 2**24 * 2**(-steps / 2**14), rounded to an integer      int32 polynomial

They are equal to the core's bit for bit, on every GPU, because there is only this in float32: one
division (``div_rn``: correctly rounded), a difference, a product, and the addition and subtraction
of 1.5 * 2**23 that round. IEEE 754 defines each of them; the one freedom that compilers take, to
fuse the product with the sum behind it, is taken from them: launch kernels that call these with
``**EXACT`` (``enable_fp_fusion=False``). The rest is integers; sums of weights stay below 2**43 and
are int64, so that their order cannot matter.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

__all__ = [
    "EXACT",
    "fraction_of",
    "is_finite_peak",
    "is_nan",
    "largest_of",
    "logit_of",
    "order_of",
    "peak_of",
    "per_logit",
    "row_peak",
    "steps_of",
    "token_of",
    "units_of",
    "weight_of_steps",
]

EXACT = {"enable_fp_fusion": False}
"""Launch options of kernels whose float32 operations must each be rounded."""


@triton.jit
def order_of(logit) -> Any:
    """An int32 that orders as the float32 does: equal for equal ones, -0.0 and 0.0 too."""
    bits = logit.to(tl.int32, bitcast=True)
    bits = tl.where((bits & 0x7FFFFFFF) == 0, 0, bits)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def is_nan(logit) -> Any:
    """By the bits of a float32."""
    return (logit.to(tl.int32, bitcast=True) & 0x7FFFFFFF) > 0x7F800000


@triton.jit
def logit_of(order) -> Any:
    """The float32 of ``order_of``."""
    return tl.where(order < 0, order ^ 0x7FFFFFFF, order).to(tl.float32, bitcast=True)


@triton.jit
def peak_of(logit, token) -> Any:
    """An int64 that is largest for the likeliest token, the first among equals; NaN is above all.

    The upper half is ``order_of(logit)``, the lower 2**31 - 1 - token.
    """
    order = tl.where(is_nan(logit), 0x7FFFFFFF, order_of(logit))
    return (order.to(tl.int64) << 32) | (0x7FFFFFFF - token).to(tl.int64)


@triton.jit
def is_finite_peak(peak) -> Any:
    """Whether it is of a number, neither NaN nor infinite."""
    order = (peak >> 32).to(tl.int32)
    return (order > -2139095041) & (order < 2139095040)  # the orders of -inf and +inf


@triton.jit
def token_of(peak) -> Any:
    """The int32 token of ``peak_of``."""
    return 0x7FFFFFFF - (peak & 0x7FFFFFFF).to(tl.int32)


@triton.jit
def row_peak(peaks_ptr, splits, SPLITS_PAD: tl.constexpr) -> Any:
    """The largest of a row's peaks, one for each split."""
    split = tl.arange(0, SPLITS_PAD)
    peaks = tl.load(peaks_ptr + split, mask=split < splits, other=-0x7FFFFFFFFFFFFFFF)
    return tl.max(peaks, axis=0)


@triton.jit
def largest_of(peaks_ptr, splits, SPLITS_PAD: tl.constexpr) -> Any:
    """The float32 logit of ``row_peak``."""
    return logit_of((row_peak(peaks_ptr, splits, SPLITS_PAD) >> 32).to(tl.int32))


@triton.jit
def per_logit(temperature) -> Any:
    """How many steps one unit of logit is worth; a temperature of 0 counts as 1."""
    temperature = tl.where(temperature > 0.0, temperature, 1.0)
    return tl.div_rn(tl.full((), 23637.11554992477, tl.float32), temperature)


@triton.jit
def steps_of(logit, largest, steps_per_logit) -> Any:
    """int32 0 to 26 * 2**14."""
    steps = (largest - logit) * steps_per_logit
    steps = tl.where((steps >= 0.0) & (steps < 425984.0), steps, 425984.0)  # NaN too
    # From 2**23 to 2**24 float32 has whole numbers only: the sum rounds half to even.
    return ((steps + 12582912.0) - 12582912.0).to(tl.int32)


@triton.jit
def weight_of_steps(steps) -> Any:
    """int32 2**24 down to 0; no product reaches 2**31."""
    fraction = steps & 16383
    slope = 7076 - ((fraction * 946) >> 14)
    slope = 31444 - ((fraction * slope) >> 14)
    slope = 90849 - ((fraction * slope) >> 14)
    power = 33554432 - ((fraction * slope) >> 6)
    return ((power >> (steps >> 14)) + 1) >> 1


@triton.jit
def units_of(fraction) -> Any:
    """A fraction of 0 to 1 in parts of 2**24, rounded up: int64."""
    return tl.ceil(fraction * 16777216.0).to(tl.int32).to(tl.int64)


@triton.jit
def fraction_of(total, units) -> Any:
    """``floor(total * units / 2**24)`` for total < 2**43, units <= 2**24."""
    return (total >> 24) * units + (((total & 0xFFFFFF) * units) >> 24)
