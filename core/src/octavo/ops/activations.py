"""SiLU, GELU and the logit cap over an array namespace, on float32 arrays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float

    from octavo.ops.arrays import Array, Namespace

__all__ = ["erf", "gelu", "silu", "soft_cap"]

# Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: |error| <= 1.5e-7.
_ERF_SCALE = 0.3275911
_ERF_COEFFICIENTS = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


def silu(xp: Namespace, x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """``x * sigmoid(x)`` through ``exp(-|x|)``, which cannot overflow."""
    decay = xp.exp(-xp.abs(x))
    return x * xp.where(x >= 0, xp.ones_like(x), decay) / (1.0 + decay)


def gelu(xp: Namespace, x: Float[Array, "*batch"], *, tanh: bool) -> Float[Array, "*batch"]:
    """``x * Phi(x)``, exactly (erf) or by the tanh approximation."""
    if tanh:
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1.0 + xp.tanh(inner))
    return 0.5 * x * (1.0 + erf(xp, x * math.sqrt(0.5)))


def erf(xp: Namespace, x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """The error function; the array API standard has none."""
    magnitude = xp.abs(x)
    t = 1.0 / (1.0 + _ERF_SCALE * magnitude)
    polynomial = xp.zeros_like(t)
    for coefficient in reversed(_ERF_COEFFICIENTS):
        polynomial = (polynomial + coefficient) * t
    return xp.sign(x) * (1.0 - polynomial * xp.exp(-magnitude * magnitude))


def soft_cap(xp: Namespace, x: Float[Array, "*batch"], cap: float) -> Float[Array, "*batch"]:
    """``cap * tanh(x / cap)``: nearly x where |x| is small, never beyond cap."""
    return cap * xp.tanh(x / cap)
