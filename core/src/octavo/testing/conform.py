"""Run checks against a subject and say what became of each: passed, failed, unclaimed or a gap."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from octavo.testing.check import Case, Check, CheckFailure

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["LOADS", "Planned", "Result", "Status", "all_checks", "plan_cases", "run_case"]

Status = Literal["passed", "failed", "unclaimed", "measured", "gap", "blocked"]
_NEEDS_NO_DEVICE = "contract"
LOADS = "contract.loads"
"""The id of the check that loads the backend; if it fails, all but the contract is blocked."""


@dataclass(frozen=True)
class Result:
    """What became of one case."""

    id: str
    check: str
    status: Status
    message: str = ""
    look: str = ""
    seconds: float = 0.0
    measured: Mapping[str, float] = field(default_factory=dict)


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


def plan_cases(
    subject: Subject, checks: Iterable[Check], *, quick: bool = False
) -> Iterator[Planned | Result]:
    """The cases of each check; a Result where they cannot even be listed."""
    for check in checks:
        try:
            if check.section != _NEEDS_NO_DEVICE:
                _ = subject.backend
        except Exception as error:  # noqa: BLE001 - a backend may raise anything; it is reported
            yield Result(check.id, check.id, "blocked", f"The backend cannot be loaded: {error}")
            continue
        try:
            cases: Sequence[Case] = list(check.cases(subject))
        except Exception as error:  # noqa: BLE001
            yield _failed(check, check.id, error, 0.0)
            continue
        yield from (Planned(check, case) for case in cases if case.quick or not quick)


def run_case(subject: Subject, planned: Planned) -> Result:
    """Run one case; whatever it raises is its failure."""
    check, case = planned.check, planned.case
    if case.unclaimed is not None:
        return Result(planned.id, check.id, "unclaimed", case.unclaimed)
    started_s = time.perf_counter()
    try:
        measured = check.run(subject, case.value)
    except Exception as error:  # noqa: BLE001
        return _failed(check, planned.id, error, time.perf_counter() - started_s)
    seconds = time.perf_counter() - started_s
    if check.section == "performance":
        return Result(planned.id, check.id, "measured", seconds=seconds, measured=measured or {})
    return Result(planned.id, check.id, "passed", seconds=seconds)


def _failed(check: Check, case_id: str, error: Exception, seconds: float) -> Result:
    look = check.look
    if isinstance(error, CheckFailure):
        look = error.look or look
        message = str(error)
    else:
        message = f"{type(error).__name__}: {error}\n{_innermost_lines(error)}"
    return Result(case_id, check.id, "failed", message, look, seconds)


def _innermost_lines(error: Exception, limit: int = 4) -> str:
    """Where it was raised: the innermost frames are the backend's own."""
    frames: list[Any] = traceback.format_tb(error.__traceback__)
    return "".join(frames[-limit:]).rstrip()
