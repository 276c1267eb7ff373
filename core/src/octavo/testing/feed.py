"""Feeds one op with random inputs of one dtype, and sees to it that these come back unmodified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo.testing.check import CheckFailure
from octavo.testing.comparison import expect_close, expect_form
from octavo.testing.paged_step import DTYPES
from octavo.testing.tolerances import TOLERANCES

if TYPE_CHECKING:
    from octavo.ops.protocol import LinearWeight
    from octavo.testing.diagnosis import Variant
    from octavo.testing.subject import Subject

__all__ = ["Feed"]


class Feed:
    """Draws inputs, hands them to the subject's ops and compares what comes back.

    Host arrays are read-only, as those of a mapped checkpoint are.
    """

    def __init__(self, subject: Subject, dtype: str, seed: Sequence[int] = (0,)) -> None:
        self.subject, self.dtype = subject, dtype
        self.storage = DTYPES[dtype]
        self.rng = np.random.default_rng(list(seed))

    def normal(self, *shape: int, scale: float = 1.0, mean: float = 0.0) -> NDArray[Any]:
        """Normally distributed numbers in the dtype."""
        return self.array(self.rng.standard_normal(shape) * scale + mean)

    def array(self, values: Any) -> NDArray[Any]:
        """Given numbers in the dtype, read-only."""
        array = np.array(values).astype(self.storage)
        array.flags.writeable = False
        return array

    def round(self, values: NDArray[np.float64]) -> NDArray[Any]:
        """An intermediate result as the dtype stores it."""
        return values.astype(self.storage)

    def linear(self, weight: NDArray[Any], bias: NDArray[Any] | None = None) -> LinearWeight:
        """A prepared weight."""
        return self.subject.backend.put_linear(weight, bias, self.dtype)

    def call(self, op: str, *arguments: Any, **static: Any) -> Any:
        """What the op returns, on the device.

        NumPy arrays are put to the device first and compared afterwards; caches, plans and weights
        pass through. Raises CheckFailure if the op has modified an argument.
        """
        placed = [self.subject.put(x) if isinstance(x, np.ndarray) else x for x in arguments]
        before = [x.copy() if isinstance(x, np.ndarray) else None for x in arguments]
        result = getattr(self.subject.ops, op)(*placed, **static)
        for index, (host, device) in enumerate(zip(before, placed, strict=True)):
            if host is not None and not _same(np.asarray(self.subject.get(device)), host):
                raise CheckFailure(
                    f"{op} has modified its argument number {index + 1}, of shape {host.shape}; "
                    "an op is pure: only a cache may be updated in place."
                )
        return result

    def get(self, op: str, *arguments: Any, **static: Any) -> NDArray[Any]:
        """What an op with one result returns, on the host."""
        return np.asarray(self.subject.get(self.call(op, *arguments, **static)))

    def expect(
        self,
        op: str,
        result: NDArray[Any],
        expected: NDArray[np.float64],
        *variants: Variant,
        axes: Sequence[str] = ("row", "feature"),
    ) -> None:
        """Raise CheckFailure unless ``result`` is ``expected`` within the dtype's tolerance."""
        what = f"The result of {op}"
        expect_form(what, result, expected.shape, self.dtype)
        expect_close(what, result, expected, TOLERANCES[self.dtype], axes=axes, variants=variants)

    def expect_same(self, op: str, result: NDArray[Any], expected: NDArray[Any]) -> None:
        """Raise CheckFailure unless ``result`` holds exactly the numbers of ``expected``."""
        what = f"The result of {op}"
        expect_form(what, result, expected.shape, expected.dtype.name)
        rows = [i for i in range(len(expected)) if not _same(result[i], expected[i])]
        if not rows:
            return
        raise CheckFailure(
            f"{what} is wrong in {len(rows)} of {len(expected)} rows. Row {rows[0]} starts "
            f"{result[rows[0]].ravel()[:4]}; expected exactly {expected[rows[0]].ravel()[:4]}."
        )


def _same(result: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Whether all numbers are equal, NaN included; that every bit survives is not an op's duty."""
    wide = result.astype(np.float64), expected.astype(np.float64)
    return np.array_equal(*wide, equal_nan=True)
