"""Tables of cases over dtypes, for checks that feed one op."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octavo.testing.check import Case, Check
from octavo.testing.feed import Feed
from octavo.testing.paged_step import DTYPES

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["OpCase", "case_of", "op_check", "unclaimed_dtype"]


@dataclass(frozen=True)
class OpCase:
    """One row of a table: what to run, and in which dtype."""

    run: Callable[..., None]  # called with a Feed and the arguments
    dtype: str
    arguments: tuple[Any, ...]


def unclaimed_dtype(subject: Subject, dtype: str) -> str | None:
    """Why nothing is run in this dtype; None if it is claimed."""
    return None if dtype in subject.caps.dtypes else f"caps.dtypes has no {dtype}"


def case_of(
    subject: Subject,
    label: str,
    dtype: str,
    run: Callable[..., None],
    *arguments: Any,
    quick: bool = True,
) -> Case:
    """A case of one dtype."""
    return Case(
        f"{label} {dtype}" if label else dtype,
        OpCase(run, dtype, arguments),
        unclaimed_dtype(subject, dtype),
        quick,
    )


def op_check(
    op: str,
    about: str,
    rows: Mapping[str, tuple[Any, ...]],
    *,
    float32_rows: Iterable[str] = (),
    full_rows: Iterable[str] = (),
    look: str | None = None,
) -> Check:
    """A check named after an op over a table: label → (function, its arguments after the feed).

    Each row is run in each dtype; ``float32_rows`` in float32 alone, and ``full_rows`` on the full
    level alone.
    """

    def cases(subject: Subject) -> Iterator[Case]:
        for label, (run, *arguments) in rows.items():
            for dtype in ("float32",) if label in set(float32_rows) else DTYPES:
                quick = label not in set(full_rows)
                yield case_of(subject, label, dtype, run, *arguments, quick=quick)

    return Check("ops", op, about, look or f"ops.{op}", _run, cases)


def _run(subject: Subject, case: OpCase) -> None:
    case.run(Feed(subject, case.dtype), *case.arguments)
