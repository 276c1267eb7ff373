"""The conformance suite as pytest tests: import all of this into a test module of yours.

    from octavo.testing.suite import *

    BACKEND = "acme"

gives one test for each case. The module may also set ``DEVICE`` ("auto"), ``ATTENTION_BACKEND``
(None), ``QUICK`` (False: all cases; True: a sample of each table) and ``SECTIONS`` (None: all).
What the backend does not claim is skipped with the reason; a gap that its conformance.toml declares
is a strict xfail. All runs in pytest's own process: ``octavo conform`` is what survives a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from octavo.errors import OctavoError, UsageError
from octavo.testing.conform import Planned, Result, all_checks, plan_cases, run_case
from octavo.testing.gaps import GapTable, read_gaps
from octavo.testing.selection import Selection
from octavo.testing.subject import Subject

if TYPE_CHECKING:
    from types import ModuleType

    from octavo.testing.check import Check

__all__ = ["pytest_generate_tests", "teardown_module", "test_conformance"]

_ARGUMENT = "octavo_conformance_case"
_SUBJECT = "_octavo_conformance_subject"
_OPTIONS = ("BACKEND", "DEVICE", "ATTENTION_BACKEND", "QUICK", "SECTIONS")


def pytest_generate_tests(metafunc: Any) -> None:
    """One test for each case of the suite, on the backend that the module names."""
    if _ARGUMENT not in metafunc.fixturenames:
        return
    import pytest

    module = metafunc.module
    try:
        subject = _open(module)
        metafunc.config.add_cleanup(subject.close)  # also if no test of the module is run
        parameters = list(_parameters(subject, _checks(module), quick=_option(module, "QUICK")))
    except OctavoError as error:
        pytest.fail(f"{module.__name__}: {error}", pytrace=False)
    metafunc.parametrize(_ARGUMENT, parameters)


def teardown_module(module: ModuleType) -> None:
    """Close the backend after the module's last test."""
    subject: Subject | None = vars(module).pop(_SUBJECT, None)
    if subject is not None:
        subject.close()


def test_conformance(octavo_conformance_case: tuple[Subject, Planned | Result]) -> None:
    """Run one case; its failure says what is wrong and where to look."""
    import pytest

    subject, planned = octavo_conformance_case
    result = planned if isinstance(planned, Result) else run_case(subject, planned)
    if result.status == "unclaimed":
        pytest.skip(result.message)
    if result.status in ("failed", "blocked"):
        pytest.fail(_message(result), pytrace=False)


def _open(module: ModuleType) -> Subject:
    """The module's subject, opened once. Raises OctavoError."""
    if not hasattr(module, _SUBJECT):
        backend = _option(module, "BACKEND")
        device, attention_backend = _option(module, "DEVICE"), _option(module, "ATTENTION_BACKEND")
        subject = Subject.installed(backend, device, attention_backend=attention_backend)
        setattr(module, _SUBJECT, subject)
    opened: Subject = getattr(module, _SUBJECT)
    return opened


def _option(module: ModuleType, name: str) -> Any:
    defaults = {"DEVICE": "auto", "ATTENTION_BACKEND": None, "QUICK": False, "SECTIONS": None}
    value = getattr(module, name, defaults.get(name))
    if name == "BACKEND" and not isinstance(value, str):
        raise UsageError('Set BACKEND = "name" to the backend to be tested.')
    return value


def _checks(module: ModuleType) -> list[Check]:
    """What is to be run; speed is reported by ``octavo conform`` and is no test."""
    selection = Selection(_option(module, "SECTIONS"), performance=False)
    return [check for check in all_checks() if selection.takes_section(check.section)]


def _parameters(subject: Subject, checks: Iterable[Check], *, quick: bool) -> Iterator[Any]:
    import pytest

    planned = list(plan_cases(subject, checks))
    gaps = _gaps_of(subject, planned)
    for each in planned:
        if quick and isinstance(each, Planned) and not each.case.quick:
            continue
        yield pytest.param((subject, each), id=each.id, marks=_marks(each, gaps))


def _gaps_of(subject: Subject, planned: Iterable[Planned | Result]) -> GapTable:
    gaps = read_gaps(subject.record, subject.name)
    cases = [(each.check.id, each.id) for each in planned if isinstance(each, Planned)]
    if not any(isinstance(each, Result) for each in planned):
        gaps.check_against(cases)
    return gaps


def _marks(planned: Planned | Result, gaps: GapTable) -> list[Any]:
    import pytest

    if isinstance(planned, Result):
        return []
    gap = gaps.gap_of(planned.check.id, planned.id)
    told = "" if gap is None else f"{gap.kind}: {gap.reason}"
    if planned.case.unclaimed is not None:
        reasons = filter(None, (planned.case.unclaimed, told))
        return [pytest.mark.skip(reason="; ".join(reasons))]
    if gap is None:
        return []
    reason = f"{told} ({gaps.source}; delete the entry {gap.check!r} when this passes)"
    return [pytest.mark.xfail(reason=reason, strict=True)]


def _message(result: Result) -> str:
    lines = [f"{result.id}: {result.message}"]
    if result.look:
        lines.append(f"look at {result.look}")
    if result.where:
        lines.append(f"written at {result.where}")
    return "\n".join(lines)
