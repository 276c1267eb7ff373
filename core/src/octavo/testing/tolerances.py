"""How far a result may lie from the float64 oracle, per dtype. Loosening one is a reviewed change.

A result passes where ``|result - oracle| <= absolute + relative * |oracle|``. The figures are for
ops on inputs of about unit size: a few roundings of the dtype, plus float32 accumulation.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TOLERANCES", "Tolerance"]


@dataclass(frozen=True)
class Tolerance:
    """Bounds on the error of one element."""

    relative: float
    absolute: float


TOLERANCES = {
    "float32": Tolerance(relative=2e-5, absolute=2e-5),
    "float16": Tolerance(relative=2e-3, absolute=2e-3),  # 11 bits of mantissa
    "bfloat16": Tolerance(relative=1.6e-2, absolute=1.6e-2),  # 8 bits of mantissa
}
