"""Integer probabilities: why the same logits give the same token on every backend.

Floating-point ``exp`` differs between libraries in its last bits, sums depend on their order, and
a compiler may fuse a multiplication and an addition. So sampling keeps floating point to a few
correctly rounded operations and does the rest in int32, where every backend agrees.

The weight of a token whose logit is d below the row's largest, at temperature T:

    steps  = round(min(d * (2**14 * log2(e) / T), 26 * 2**14))       float32, half to even
    weight = 2**24 * 2**(-steps / 2**14), rounded to an integer      int32 polynomial

The likeliest token has weight 2**24, one that is 2**-25 as likely has 1, what is below has 0 and
cannot be drawn. A weight never grows as the logit falls, and ``2**-x`` is off by less than 3e-5.

Sums of weights need up to 43 bits, and not every backend has 64: they are a pair (high, low) of
int32 standing for ``high * 2**12 + low``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from octavo.ops.arrays import Array, Namespace

if TYPE_CHECKING:
    from jaxtyping import Float, Int

__all__ = [
    "LIMIT_STEPS",
    "MAX_VOCAB_SIZE",
    "STEP_BITS",
    "UNIT",
    "UNIT_BITS",
    "Wide",
    "carried",
    "cumulative",
    "fraction_of",
    "less",
    "limbs",
    "steps_per_logit",
    "to_units",
    "weights",
    "weights_of_steps",
]

STEP_BITS = 14
UNIT_BITS = 24
UNIT = 1 << UNIT_BITS
LIMIT_STEPS = 26 << STEP_BITS  # weight 0 from here on
MAX_VOCAB_SIZE = 500_000  # 2**12 times this, the largest partial sum, still fits in an int32

_LOG2_E = 1.4426950408889634
_LIMB_BITS = 12
_LIMB_MASK = (1 << _LIMB_BITS) - 1

Wide = tuple[Array, Array]
"""(high, low) of non-negative integers, ``low < 2**12``."""


def steps_per_logit(xp: Namespace, temperature: Float[Array, "*rows"]) -> Float[Array, "*rows"]:
    """How many 2**-14 parts of a halving one unit of logit is worth, for float32 temperatures."""
    # NOTE: torch turns scalar / array into a reciprocal and a product, which rounds twice.
    return xp.full_like(temperature, _LOG2_E * (1 << STEP_BITS)) / temperature


def weights(
    xp: Namespace,
    logits: Float[Array, "rows vocab"],
    largest: Float[Array, "rows 1"],
    per_logit: Float[Array, "rows 1"],
) -> Int[Array, "rows vocab"]:
    """int32 weight of each token, 0 to 2**24."""
    steps = (largest - logits) * per_logit
    steps = xp.where(steps < float(LIMIT_STEPS), steps, float(LIMIT_STEPS))
    return weights_of_steps(xp.astype(xp.round(steps), xp.int32))


def weights_of_steps(steps: Int[Array, "*batch"]) -> Int[Array, "*batch"]:
    """``2**24 * 2**(-steps / 2**14)`` for int32 steps of 0 to LIMIT_STEPS, rounded to int32.

    The fraction goes through a polynomial in Horner form with 17-bit coefficients, fitted so that
    it falls strictly over all 2**14 fractions; no product reaches 2**31.
    """
    fraction = steps & ((1 << STEP_BITS) - 1)
    slope = 7076 - ((fraction * 946) >> STEP_BITS)
    slope = 31444 - ((fraction * slope) >> STEP_BITS)
    slope = 90849 - ((fraction * slope) >> STEP_BITS)
    power = 2 * UNIT - ((fraction * slope) >> 6)  # 2**25 * 2**(-fraction / 2**14)
    return ((power >> (steps >> STEP_BITS)) + 1) >> 1


def cumulative(xp: Namespace, values: Int[Array, "rows vocab"]) -> Wide:
    """Running sums of weights along each row."""
    high, low = limbs(values)
    return carried(
        xp.cumulative_sum(high, axis=-1, dtype=xp.int32),
        xp.cumulative_sum(low, axis=-1, dtype=xp.int32),
    )


def limbs(values: Int[Array, "*batch"]) -> Wide:
    """Weights as pairs, which can be summed limb by limb."""
    return values >> _LIMB_BITS, values & _LIMB_MASK


def carried(high_sum: Int[Array, "*batch"], low_sum: Int[Array, "*batch"]) -> Wide:
    """A pair of what was summed limb by limb."""
    return high_sum + (low_sum >> _LIMB_BITS), low_sum & _LIMB_MASK


def less(left: Wide, right: Wide) -> Array:
    """``left < right``, elementwise."""
    return (left[0] < right[0]) | ((left[0] == right[0]) & (left[1] < right[1]))


def to_units(xp: Namespace, fraction: Float[Array, "*rows"]) -> Int[Array, "*rows"]:
    """A fraction of 0 to 1 in parts of 2**24, rounded up; exact for multiples of 2**-24."""
    return xp.astype(xp.ceil(xp.astype(fraction, xp.float32) * float(UNIT)), xp.int32)


def fraction_of(total: Wide, units: Int[Array, "*rows"]) -> Wide:
    """``floor(total * units / 2**24)``, by long multiplication in 12-bit digits."""
    digits = (
        total[1],
        total[0] & _LIMB_MASK,
        (total[0] >> _LIMB_BITS) & _LIMB_MASK,
        total[0] >> (2 * _LIMB_BITS),
    )
    low, high = units & _LIMB_MASK, units >> _LIMB_BITS  # high reaches 2**12 when units is 2**24
    column = digits[0] * low
    product = []
    for next_digit, digit in zip((*digits[1:], None), digits, strict=True):
        product.append(column & _LIMB_MASK)
        column = (column >> _LIMB_BITS) + digit * high
        if next_digit is not None:
            column = column + next_digit * low
    # Six digits in all: four here, the rest in column. The lowest two are the part below 1.
    return (column << _LIMB_BITS) + product[3], product[2]
