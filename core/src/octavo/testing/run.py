"""Run the suite on an installed backend: plan, then one result after another, into a report."""

from __future__ import annotations

import datetime as dt
import importlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from octavo.testing.conform import Result
from octavo.testing.isolated import IsolatedSubject, ListedCase, Opened
from octavo.testing.report import Report
from octavo.testing.selection import Selection

if TYPE_CHECKING:
    from octavo.testing.check import Check

__all__ = ["DEFAULT_CHECKS", "DEFAULT_LIMIT_S", "SuiteRequest", "SuiteRun", "load_checks"]

DEFAULT_LIMIT_S = 120.0
"""How long one case may take."""

DEFAULT_CHECKS = "octavo.testing.checks:CHECKS"


@dataclass(frozen=True)
class SuiteRequest:
    """What to run, and on what."""

    backend: str
    device: str = "auto"
    attention_backend: str | None = None
    plugins_file: str | None = None
    selection: Selection = field(default_factory=Selection)
    limit_s: float = DEFAULT_LIMIT_S
    checks: str = field(default_factory=lambda: DEFAULT_CHECKS)
    """``module:name`` of the checks, importable here and in a new process."""


def load_checks(place: str | None = None) -> tuple[Check, ...]:
    """The checks at ``module:name``; the suite's own if None."""
    module, _, name = (place or DEFAULT_CHECKS).partition(":")
    checks: tuple[Check, ...] = getattr(importlib.import_module(module), name)
    return checks


class SuiteRun:
    """A planned run. ``report`` holds what is known at any time; leaving the context ends it all.

    Raises OctavoError if the suite cannot be run: UsageError for an unknown backend or pattern,
    PluginError for a conformance.toml that does not hold.
    """

    def __init__(self, request: SuiteRequest, on_output: Callable[[str], object]) -> None:
        arguments = {
            "backend": request.backend,
            "device": request.device,
            "attention_backend": request.attention_backend,
            "plugins_file": request.plugins_file,
            "checks": request.checks,
        }
        self._request = request
        self._current: str | None = None
        self._subject = IsolatedSubject(arguments, request.limit_s, on_output)
        try:
            self._plan()
        except BaseException:
            self._subject.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._subject.close()
        else:
            self._subject.kill()

    @property
    def cases(self) -> Sequence[ListedCase]:
        """What is to be run, in order."""
        return [each for each in self._planned if isinstance(each, ListedCase)]

    @property
    def unlisted(self) -> Sequence[Result]:
        """What stands for checks whose cases cannot be listed."""
        return [each for each in self._planned if isinstance(each, Result)]

    @property
    def num_results(self) -> Counter[str]:
        """How many results each section will have, in order."""
        return Counter(_check_of(each).partition(".")[0] for each in self._planned)

    @property
    def current(self) -> str | None:
        """The id of the case that runs, or ran last."""
        return self._current

    @property
    def reason(self) -> str:
        """The device, the backend, and why these, in one line."""
        return self._opened.reason

    def results(self, on_start: Callable[[ListedCase], object]) -> Iterator[Result]:
        """Run case after case; each result is in the report when it is yielded."""
        started_s = time.monotonic()
        for result in self._judged_results(on_start):
            self.report.results.append(result)
            self.report.duration_s = time.monotonic() - started_s
            yield result

    def kill(self) -> None:
        """End what runs, at once."""
        self._subject.kill()

    def _judged_results(self, on_start: Callable[[ListedCase], object]) -> Iterator[Result]:
        for each in self._planned:
            if isinstance(each, Result):
                yield each
                continue
            self._current = each.id
            on_start(each)
            yield self._opened.gaps.judge(self._subject.run(each))

    def _plan(self) -> None:
        request, started = self._request, dt.datetime.now(dt.UTC)
        checks = load_checks(request.checks)
        self._opened: Opened = self._subject.open()
        capabilities = self._subject.load()
        listed = [self._subject.cases_of(check) for check in checks]
        cases = [case for each in listed if not isinstance(each, Result) for case in each]
        unlisted = [each for each in listed if isinstance(each, Result)]
        if not unlisted:  # else a gap may be for what could not be listed
            self._opened.gaps.check_against((case.check.id, case.id) for case in cases)
        chosen = request.selection.choose(cases, [result.check for result in unlisted])
        chosen_ids = {case.id for case in chosen}
        self._planned: list[ListedCase | Result] = [
            each
            for group in listed
            for each in ([group] if isinstance(group, Result) else group)
            if each.id in chosen_ids
            or (isinstance(each, Result) and request.selection.takes_check(each.check))
        ]
        self.report = Report(
            backend=request.backend,
            distribution=self._opened.distribution,
            device=self._opened.device,
            attention_backend=request.attention_backend,
            capabilities=capabilities,
            quick=request.selection.quick,
            sections=request.selection.sections,
            pattern=request.selection.pattern,
            checks={check.id: check.about for check in checks},
            started=started.isoformat(timespec="seconds"),
        )


def _check_of(planned: ListedCase | Result) -> str:
    return planned.check if isinstance(planned, Result) else planned.check.id
