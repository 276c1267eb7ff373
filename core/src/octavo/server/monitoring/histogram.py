"""A histogram of one event loop: no locks, and many equal values at the price of one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from prometheus_client.utils import floatToGoString

__all__ = ["Histogram"]


class Histogram:
    """Counts of observed values, each in the bucket of the least bound that is not below it."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Note a value that was seen ``count`` times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    @property
    def sum(self) -> float:
        """Of all observed values."""
        return self._sum

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, how many values were at most that), as Prometheus has them."""
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True))
