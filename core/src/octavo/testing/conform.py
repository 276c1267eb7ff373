"""Run checks against a subject and say what became of each: passed, failed, unclaimed or a gap."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from octavo.testing.check import Blocked, Case, Check, CheckFailure
from octavo.testing.locate import locate

if TYPE_CHECKING:
    from octavo.testing.gaps import Gap
    from octavo.testing.subject import Subject

__all__ = [
    "Planned",
    "Result",
    "Status",
    "all_checks",
    "cases_of",
    "needs_device",
    "plan_cases",
    "run_case",
]

Status = Literal["passed", "failed", "unclaimed", "measured", "gap", "blocked"]


@dataclass(frozen=True)
class Result:
    """What became of one case."""

    id: str
    check: str
    status: Status
    message: str = ""
    look: str = ""
    """The members to look at."""
    where: str = ""
    """Where these are written: file, line and name."""
    seconds: float = 0.0
    measured: Mapping[str, float] = field(default_factory=dict)
    gap: Gap | None = None
    """The entry of conformance.toml that covers the case."""


@dataclass(frozen=True)
class Planned:
    """A case that is to be run."""

    check: Check
    case: Case

    @property
    def id(self) -> str:
        """What gaps and ``-k`` match."""
        return self.check.case_id(self.case)


def all_checks() -> tuple[Check, ...]:
    """Every check of the suite, in the order of SECTIONS."""
    from octavo.testing.checks import CHECKS

    return CHECKS


def needs_device(check: Check) -> bool:
    """Whether a check makes sense only once the backend has been loaded."""
    return check.section != "contract"


def plan_cases(
    subject: Subject, checks: Iterable[Check], *, quick: bool = False
) -> Iterator[Planned | Result]:
    """The cases of each check; a Result where they cannot even be listed."""
    for check in checks:
        cases = cases_of(subject, check)
        if isinstance(cases, Result):
            yield cases
        else:
            yield from (planned for planned in cases if planned.case.quick or not quick)


def cases_of(subject: Subject, check: Check) -> list[Planned] | Result:
    """Every case of a check, or the Result that stands for them."""
    try:
        if needs_device(check):
            _ = subject.backend
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a backend may raise anything
        return Result(check.id, check.id, "blocked", f"The backend cannot be loaded: {error}")
    try:
        cases = [Planned(check, case) for case in check.cases(subject)]
        _refuse_repeated(cases)
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return _failed(subject, check, check.id, error, 0.0)
    return cases


def run_case(subject: Subject, planned: Planned) -> Result:
    """Run one case; whatever it raises is its failure."""
    check, case = planned.check, planned.case
    if case.unclaimed is not None:
        return Result(planned.id, check.id, "unclaimed", case.unclaimed)
    started_s = time.perf_counter()
    try:
        outcome = check.run(subject, case.value)
    except Blocked as reason:
        return Result(planned.id, check.id, "blocked", str(reason))
    except (Exception, SystemExit) as error:  # noqa: BLE001
        seconds = time.perf_counter() - started_s
        return _failed(subject, check, planned.id, error, seconds)
    seconds = time.perf_counter() - started_s
    if check.section == "performance":
        return Result(planned.id, check.id, "measured", seconds=seconds, measured=outcome or {})
    note = outcome if isinstance(outcome, str) else ""
    return Result(planned.id, check.id, "passed", note, seconds=seconds)


def _refuse_repeated(cases: Iterable[Planned]) -> None:
    seen = set()
    for planned in cases:
        if planned.id in seen:
            raise ValueError(f"Two cases are called {planned.id!r}: a fault of the suite's.")
        seen.add(planned.id)


def _failed(
    subject: Subject, check: Check, case_id: str, error: BaseException, seconds: float
) -> Result:
    look = check.look
    if isinstance(error, CheckFailure):
        look = error.look or look
        message = str(error)
    else:
        message = f"{type(error).__name__}: {error}\n{_innermost_lines(error)}"
    where = locate(subject, look)
    return Result(case_id, check.id, "failed", message, look, where, seconds)


def _innermost_lines(error: BaseException, limit: int = 4) -> str:
    """Where it was raised: the innermost frames are the backend's own."""
    own = error.__traceback__  # the frame of this module, of no use to anybody
    frames = traceback.format_tb(own.tb_next if own is not None else None)
    return "".join(frames[-limit:]).rstrip()
