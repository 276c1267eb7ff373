"""How far ``octavo conform`` is: a line for each section on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from octavo.cli.tables import printable

if TYPE_CHECKING:
    from rich.progress import Progress

    from octavo.testing.conform import Result
    from octavo.testing.isolated import ListedCase

__all__ = ["ConformProgress", "show_progress"]

_WRONG = ("failed", "blocked")


class ConformProgress(Protocol):
    """Is told of each case that begins and each that ends."""

    def start(self, case: ListedCase) -> None:
        """A case begins."""

    def finish(self, result: Result) -> None:
        """A case has come to something."""


@contextmanager
def show_progress(totals: Mapping[str, int]) -> Iterator[ConformProgress]:
    """Progress on standard error, for each section with its number of results, in order."""
    if not sys.stderr.isatty():
        lines = _Lines(totals)
        yield lines
        lines.end()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    cut = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[wrong]}", style="red"),
        TextColumn("{task.fields[current]}", style="dim", markup=False, table_column=cut),
    )
    with Progress(*columns, console=Console(stderr=True), expand=True) as bars:
        yield _Bars(bars, totals)


class _Lines:
    """One line for each failure when it happens, and for each section when it is through."""

    def __init__(self, totals: Mapping[str, int]) -> None:
        self._totals = totals
        self._section = ""
        self._found: Counter[str] = Counter()
        self._blocked_by: set[str] = set()

    def start(self, case: ListedCase) -> None:
        self._enter(case.check.section)

    def finish(self, result: Result) -> None:
        self._enter(result.check.partition(".")[0])
        self._found[result.status] += 1
        if result.status == "blocked" and result.message in self._blocked_by:
            return  # what blocks one case often blocks hundreds
        if result.status == "blocked":
            self._blocked_by.add(result.message)
        if result.status in _WRONG:
            self._print(f"{result.status.upper()} {result.id}")

    def end(self) -> None:
        self._enter("")

    def _enter(self, section: str) -> None:
        if section == self._section:
            return
        if self._section:
            counted = ", ".join(f"{count} {status}" for status, count in self._found.items())
            self._print(f"{self._section}: {counted or 'nothing'} of {self._totals[self._section]}")
        self._section, self._found = section, Counter()

    def _print(self, text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)


class _Bars:
    """One bar for each section, with the case that runs."""

    def __init__(self, bars: Progress, totals: Mapping[str, int]) -> None:
        self._bars = bars
        self._wrong: Counter[str] = Counter()
        self._tasks: dict[str, Any] = {
            section: bars.add_task(section, total=total, wrong="", current="")
            for section, total in totals.items()
        }

    def start(self, case: ListedCase) -> None:
        self._bars.update(self._tasks[case.check.section], current=printable(case.id))

    def finish(self, result: Result) -> None:
        section = result.check.partition(".")[0]
        self._wrong[section] += result.status in _WRONG
        wrong = f"{self._wrong[section]} failed" if self._wrong[section] else ""
        self._bars.update(self._tasks[section], advance=1, wrong=wrong, current="")
