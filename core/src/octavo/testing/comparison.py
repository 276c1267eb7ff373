"""Compares a result with the oracle's, and says where it is off, by how much, and why perhaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.testing.check import CheckFailure
from octavo.testing.diagnosis import Variant, diagnose
from octavo.testing.tolerances import Tolerance

__all__ = ["expect_close", "expect_form"]


def expect_form(what: str, result: NDArray[Any], shape: tuple[int, ...], dtype: str) -> None:
    """Raise CheckFailure unless ``result`` has this shape and dtype."""
    if result.shape != shape:
        raise CheckFailure(f"{what} has the shape {result.shape}; expected {shape}.")
    if result.dtype.name != dtype:
        raise CheckFailure(
            f"{what} has the dtype {result.dtype.name}; expected {dtype}, as its arguments have. "
            "(What is computed in float32 is rounded before it is returned.)"
        )


def expect_close(
    what: str,
    result: NDArray[Any],
    expected: NDArray[np.float64],
    tolerance: Tolerance,
    *,
    axes: Sequence[str],
    variants: Sequence[Variant] = (),
    slack: NDArray[np.float64] | float = 0.0,
) -> None:
    """Raise CheckFailure unless each element lies within its tolerance, plus ``slack``.

    ``axes`` names the dimensions; ``variants`` are wrong answers to recognise the fault by.
    """
    values = result.astype(np.float64)
    allowed = tolerance.absolute + tolerance.relative * np.abs(expected) + slack
    wrong = ~_within(values, expected, allowed)
    if not wrong.any():
        return
    with np.errstate(invalid="ignore"):
        excess = np.where(np.isfinite(values), np.abs(values - expected) / allowed, np.inf)
    worst = np.unravel_index(int(np.argmax(np.where(wrong, excess, -1))), wrong.shape)
    place = ", ".join(f"{axis} {i}" for axis, i in zip(axes, worst, strict=True))
    message = (
        f"{what} is wrong in {_extent(wrong, axes)}. At {place} it is {values[worst]:.6g}; "
        f"expected {expected[worst]:.6g}, give or take {allowed[worst]:.2g}."
    )
    likely = diagnose(values, expected, wrong, allowed, variants)
    raise CheckFailure(message if likely is None else f"{message} It looks as if {likely}.")


def _within(
    values: NDArray[np.float64], expected: NDArray[np.float64], allowed: NDArray[np.float64]
) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):  # inf - inf
        near: NDArray[np.bool_] = np.abs(values - expected) <= allowed
    within: NDArray[np.bool_] = near | (values == expected)
    return within


def _extent(wrong: NDArray[np.bool_], axes: Sequence[str]) -> str:
    """How many elements, and between which indices of each axis, where that is not all of it."""
    parts = []
    for axis, name in enumerate(axes):
        other_axes = tuple(other for other in range(wrong.ndim) if other != axis)
        (indices,) = np.nonzero(wrong.any(axis=other_axes))
        first, last = int(indices[0]), int(indices[-1])
        if last - first + 1 == wrong.shape[axis]:
            continue
        span = f"{first}" if first == last else f"{first} to {last}"
        scattered = "" if last - first + 1 == len(indices) else f" ({len(indices)} of them)"
        parts.append(f"{name} {span}{scattered} of {wrong.shape[axis]}")
    where = f", at {', '.join(parts)}" if parts else ""
    return f"{int(wrong.sum())} of {wrong.size} elements{where}"
