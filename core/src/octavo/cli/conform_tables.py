"""What ``octavo conform`` found, for people: tables, failures with their remedies, speeds."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from octavo.cli.performance_table import print_performance
from octavo.cli.tables import print_note, print_table, printable
from octavo.testing.check import SECTIONS

if TYPE_CHECKING:
    from octavo.testing.conform import Result
    from octavo.testing.report import CheckSummary, Report

__all__ = ["print_report"]

_SHOWN_PER_CHECK = 3
"""Failures of one check that are told in full; its others are most often the same one."""

_SHOWN_BRIEFLY = 12

_NAMED_PER_REASON = 4
"""Checks that are named of those which one reason blocks."""

Rerun = Callable[[str], list[str]]
"""The command line that runs a check or case again, by its id."""


def print_report(report: Report, rerun: Rerun) -> None:
    """Print all there is to say, the most important last."""
    summaries = report.by_check()
    for section in SECTIONS:
        rows = [_row(summary) for summary in summaries if summary.section == section]
        if section != "performance":
            columns = ("check", "what it proves", "passed", "failed", "gaps", "unclaimed")
            print_table(section, columns, rows)
    print_performance([each for each in report.results if each.check.startswith("performance.")])
    _print_reasons(report)
    blocked, failures = _apart(report.failures)
    _print_blocked(blocked)
    _print_failures(failures, rerun)
    print(printable(_summary_line(report)))


def _summary_line(report: Report) -> str:
    """The whole run in one line."""
    counts = report.counts
    wrong = len(report.failures)
    parts = [f"{counts['passed']} passed", f"{wrong} failed"]
    parts += [
        f"{counts[status]} {word}"
        for status, word in (("gap", "gaps"), ("unclaimed", "unclaimed"), ("measured", "measured"))
        if counts[status]
    ]
    device = f"{report.device['kind']}:{report.device['index']}"
    who = f"{report.backend} ({report.distribution['name']} {report.distribution['version']})"
    interrupted = " Interrupted: not all was run." if report.was_interrupted else ""
    return f"{who} on {device}: {', '.join(parts)} in {report.duration_s:.1f} s.{interrupted}"


def _row(summary: CheckSummary) -> tuple[str, ...]:
    counts: Mapping[str, int] = summary.counts
    failed = counts["failed"] + counts["blocked"]
    numbers = (counts["passed"], failed, counts["gap"], counts["unclaimed"])
    name = summary.id.partition(".")[2]
    return (name, summary.about, *(str(number) if number else "-" for number in numbers))


def _print_reasons(report: Report) -> None:
    gaps = Counter(
        (result.gap.kind, result.gap.check, result.gap.reason)
        for result in report.results
        if result.gap is not None
    )
    print_table(
        "Declared gaps",
        ("kind", "check", "reason", "cases"),
        [(*gap, str(count)) for gap, count in gaps.items()],
    )
    unclaimed = Counter(
        result.message
        for result in report.results
        if result.status == "unclaimed" and result.gap is None
    )
    print_table(
        "Not claimed, and not run",
        ("why", "cases"),
        [(reason, str(count)) for reason, count in unclaimed.items()],
    )
    notes = [
        (result.id, result.message)
        for result in report.results
        if result.status == "passed" and result.message
    ]
    print_table("Notes", ("check", "note"), notes)


def _apart(wrong: Iterable[Result]) -> tuple[dict[str, list[Result]], list[Result]]:
    """By reason, what one reason blocks too much of to be told apart; and all the rest."""
    wrong = list(wrong)
    blocked: dict[str, list[Result]] = {}
    for result in wrong:
        if result.status == "blocked":
            blocked.setdefault(result.message, []).append(result)
    many = {why: found for why, found in blocked.items() if len(found) > _SHOWN_PER_CHECK}
    rest = [each for each in wrong if each.status != "blocked" or each.message not in many]
    return many, rest


def _print_blocked(blocked: Mapping[str, list[Result]]) -> None:
    for why, results in blocked.items():
        checks = list(dict.fromkeys(result.check for result in results))
        more = len(checks) - _NAMED_PER_REASON
        named = ", ".join(checks[:_NAMED_PER_REASON]) + (f" and {more} more" if more > 0 else "")
        print(printable(f"BLOCKED {len(results)} times, in {named}"))
        _print_labelled("what", why)
        print()


def _print_failures(failures: Iterable[Result], rerun: Rerun) -> None:
    by_check: dict[str, list[Result]] = {}
    for result in failures:
        by_check.setdefault(result.check, []).append(result)
    for check, results in by_check.items():
        for result in results[:_SHOWN_PER_CHECK]:
            _print_failure(result, shlex.join(rerun(result.id)))
        _print_briefly(results[_SHOWN_PER_CHECK:], shlex.join(rerun(check)))


def _print_briefly(results: list[Result], command: str) -> None:
    if not results:
        return
    for result in results[:_SHOWN_BRIEFLY]:
        first_line = result.message.partition("\n")[0]
        print(printable(f"{result.status.upper()} {result.id}: {first_line}"))
    if len(results) > _SHOWN_BRIEFLY:
        print(f"... and {len(results) - _SHOWN_BRIEFLY} more")
    print_note(f"All of this check: {command}")


def _print_failure(result: Result, command: str) -> None:
    print(printable(f"{result.status.upper()} {result.id}"))
    _print_labelled("what", result.message)
    _print_labelled("look at", "\n".join(filter(None, (result.look, *result.where.split(", ")))))
    _print_labelled("again", command)
    print()


def _print_labelled(label: str, text: str) -> None:
    for number, line in enumerate(text.splitlines()):
        print(f"  {label if number == 0 else '':8}{printable(line)}".rstrip())
