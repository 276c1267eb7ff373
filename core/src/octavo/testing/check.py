"""A check of the conformance suite: what it proves, over which cases, where to look if it fails.

A check is a plain function of a subject and a case. It raises CheckFailure when the backend is
wrong; what the capabilities do not claim is a case of its own that says so and is not run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["SECTIONS", "Blocked", "Case", "Check", "CheckFailure", "one_case"]

SECTIONS = (
    "contract",
    "ops",
    "paging",
    "invariance",
    "randomness",
    "engine",
    "faults",
    "performance",
)
"""In the order in which they run: what comes first explains what fails later."""


class CheckFailure(AssertionError):  # noqa: N818 - a finding, not an error of the suite
    """The backend is wrong. The message says what was found and what was expected.

    ``look`` names the place to look at where it is better known than the check's own.
    """

    def __init__(self, message: str, *, look: str | None = None) -> None:
        super().__init__(message)
        self.look = look


class Blocked(Exception):  # noqa: N818 - says nothing about what the check is for
    """A check cannot be carried out, because of what another one reports; the message names it."""


@dataclass(frozen=True)
class Case:
    """One row of a check's table."""

    label: str
    value: Any = None
    unclaimed: str | None = None
    """Why the backend does not claim this; the case is listed and not run."""
    quick: bool = True
    """Part of the quick level, which is a sample of every table."""


def one_case(_subject: Subject) -> Iterable[Case]:
    """The table of a check without one."""
    return (Case(""),)


@dataclass(frozen=True)
class Check:
    """One property that every backend must have."""

    section: str
    name: str
    about: str
    """What it proves, in one line."""
    look: str
    """The members of the backend to look at when it fails."""
    run: Callable[[Subject, Any], Any]
    """Called with the subject and a case's value. Raises CheckFailure; a check of the section
    ``performance`` returns what it measured, a mapping of names with units to numbers. A string
    that another one returns is a note, to be shown beside the result."""
    cases: Callable[[Subject], Iterable[Case]] = one_case

    @property
    def id(self) -> str:
        """``section.name``."""
        return f"{self.section}.{self.name}"

    def case_id(self, case: Case) -> str:
        """``section.name[label]``, what gaps and ``-k`` match."""
        return f"{self.id}[{case.label}]" if case.label else self.id
