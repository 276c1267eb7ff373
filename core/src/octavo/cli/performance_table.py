"""The speed of each op beside what the device was measured to do at best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from octavo.cli.tables import print_note, print_table

if TYPE_CHECKING:
    from octavo.testing.conform import Result

__all__ = ["print_performance"]

_COLUMNS = ("op", "shape", "time", "GB/s", "limit", "share", "GFLOP/s", "limit", "share")
_SECONDS = "seconds"
_RATES = (
    ("bytes", "read_bytes_per_s_limit"),
    ("operations", "operations_per_s_limit"),
)


def print_performance(results: Sequence[Result]) -> None:
    """A table of what was measured, and one of what could not be."""
    measured = [result for result in results if result.status == "measured"]
    print_table("performance", _COLUMNS, [_row(result) for result in measured])
    if any(_is_faster_than_memory(result.measured) for result in measured):
        print_note("A share of more than 100 % is of data that lay in a cache, not in memory.")
    missing = [(result.id, result.message) for result in results if result.status != "measured"]
    print_table("Not measured", ("case", "why"), missing)


def _row(result: Result) -> tuple[str, ...]:
    name = result.check.partition(".")[2]
    shape = result.id.removeprefix(result.check).strip("[]")
    cells = [name, shape, _duration(result.measured.get(_SECONDS))]
    for amount, limit in _RATES:
        cells += _rate(result.measured, amount, limit)
    return tuple(cells)


def _is_faster_than_memory(measured: Mapping[str, float]) -> bool:
    amount, limit = _RATES[0]
    return measured.get(amount, 0.0) > measured.get(_SECONDS, 0.0) * measured.get(limit, math.inf)


def _rate(measured: Mapping[str, float], amount: str, limit: str) -> tuple[str, str, str]:
    """Giga-units a second, those of the device, and the share of these in percent."""
    if measured.get(amount) == 0:  # an op that only moves data
        return ("-", "-", "-")
    seconds, most = measured.get(_SECONDS, 0.0), measured.get(limit, 0.0)
    rate = measured[amount] / seconds if amount in measured and seconds > 0 else math.nan
    share = rate / most if most > 0 else math.nan
    has_share = math.isfinite(share) and math.isfinite(most)
    return (
        _digits(rate / 1e9),
        _digits(most / 1e9) if most > 0 else "-",
        f"{100 * share:.0f} %" if has_share else "-",
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, size_s in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size_s:
            return f"{_digits(seconds / size_s)} {unit}"
    return f"{_digits(seconds / 1e-6)} µs"


def _digits(value: float) -> str:
    """Three digits that mean something, as a plain number."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
