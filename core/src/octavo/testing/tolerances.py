"""How far a result may lie from the float64 oracle, per dtype. Loosening one is a reviewed change.

A result passes where ``|result - oracle| <= absolute + relative * |oracle|``. The figures are for
ops on inputs of about unit size.

How they come about. Let u be half a unit in the last place of 1.0, the most that one rounding errs:

========== ============================ ======================================================
float32    u = 2^-24                    4 u sqrt(8192): sums of up to 8192 terms, accumulated in
                                        float32, whose roundings add up like a random walk
float16    u = 2^-11 (11 bits)          4 u: the result is rounded, and so are a composite's steps;
bfloat16   u = 2^-8 (8 bits)            what is accumulated in float32 adds nothing to speak of
float8     u = 2^-4 and 2^-3            2 u, for a cache only: each key moves its score and each
                                        value the sum, by at most u of itself, mostly less
int8       half a step = 4 / 254        4 half steps, for a cache with a scale for each token and
                                        head: numbers of unit size reach 4, so a step is 4 / 127
========== ============================ ======================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["TOLERANCES", "Tolerance", "logprob_tolerance", "tolerance_of"]


@dataclass(frozen=True)
class Tolerance:
    """Bounds on the error of one element."""

    relative: float
    absolute: float

    def scaled(self, unit: float) -> Tolerance:
        """For results of the size of ``unit`` instead of 1."""
        return Tolerance(self.relative, self.absolute * unit)


def _equal(bound: float) -> Tolerance:
    return Tolerance(relative=bound, absolute=bound)


TOLERANCES = {
    "float32": _equal(4 * math.sqrt(8192) * 2**-24),  # 2.2e-5
    "float16": _equal(4 * 2**-11),  # 2.0e-3
    "bfloat16": _equal(4 * 2**-8),  # 1.6e-2
    "float8_e4m3fn": _equal(2 * 2**-4),  # 0.13
    "float8_e5m2": _equal(2 * 2**-3),  # 0.25
    "int8": _equal(4 * 4 / 254),  # 6.3e-2
}


def tolerance_of(*dtypes: str) -> Tolerance:
    """For a result that passes through several dtypes: the loosest."""
    return max((TOLERANCES[dtype] for dtype in dtypes), key=lambda bounds: bounds.absolute)


def logprob_tolerance(*dtypes: str) -> float:
    """For a log-probability at the end of a tiny model that computes and stores in ``dtypes``.

    Eight times an op's: the roundings of a few layers add up, mostly like a random walk. Ours
    use up to two thirds of it.
    """
    return 8 * tolerance_of(*dtypes).absolute
