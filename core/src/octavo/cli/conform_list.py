"""``octavo conform --list``: the checks of the suite, or every case of one backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octavo.cli.listing import print_json
from octavo.cli.tables import print_table
from octavo.testing.check import SECTIONS
from octavo.testing.run import load_checks

if TYPE_CHECKING:
    from octavo.testing.run import SuiteRun
    from octavo.testing.selection import Selection

__all__ = ["list_cases", "list_checks"]


def list_checks(selection: Selection, *, as_json: bool) -> None:
    """Every check that is selected; no backend is loaded. Raises UsageError if there is none."""
    checks = selection.choose_checks(load_checks())
    if as_json:
        rows = [
            {"id": check.id, "section": check.section, "about": check.about} for check in checks
        ]
        print_json({"schema": 1, "checks": rows})
        return
    for section in SECTIONS:
        lines = [(check.id, check.about) for check in checks if check.section == section]
        print_table(section, ("check", "what it proves"), lines)


def list_cases(run: SuiteRun, *, as_json: bool) -> None:
    """Every case of a run, none of them run."""
    rows = [
        {
            "id": case.id,
            "check": case.check.id,
            "section": case.check.section,
            "unclaimed": case.unclaimed,
            "quick": case.quick,
        }
        for case in run.cases
    ]
    unlisted = {result.check: result.message for result in run.unlisted}
    if as_json:
        print_json({"schema": 1, "cases": rows, "unlisted": unlisted})
        return
    for section in SECTIONS:
        lines = [
            (case.id, f"not claimed: {case.unclaimed}" if case.unclaimed else "")
            for case in run.cases
            if case.check.section == section
        ]
        print_table(section, ("case", ""), lines)
    print_table("Cannot be listed", ("check", "why"), list(unlisted.items()))
