"""Which cases of the suite to run: by section, by pattern, by level."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.errors import UsageError
from octavo.suggest import choices, did_you_mean
from octavo.testing.check import SECTIONS
from octavo.testing.patterns import matches_within, nearest_id

if TYPE_CHECKING:
    from octavo.testing.check import Check
    from octavo.testing.isolated import ListedCase

__all__ = ["Selection"]

_PERFORMANCE = "performance"


@dataclass(frozen=True)
class Selection:
    """What was asked for. Raises UsageError for an unknown section."""

    sections: tuple[str, ...] | None = None
    """None: all."""
    pattern: str | None = None
    """The id of a check or case, or else text within one, where ``*`` stands for any text."""
    quick: bool = False
    performance: bool | None = None
    """None: unless ``quick``."""

    def __post_init__(self) -> None:
        for section in self.sections or ():
            if section not in SECTIONS:
                raise UsageError(
                    f"There is no section {section!r}.{did_you_mean(section, SECTIONS)} "
                    f"Sections: {choices(SECTIONS)}."
                )

    def takes_section(self, section: str) -> bool:
        """Whether checks of a section are run."""
        if section == _PERFORMANCE and self.performance is not None:
            return self.performance and self._names(section)
        if section == _PERFORMANCE and self.sections is None:
            return not self.quick
        return self._names(section)

    def takes_check(self, check_id: str) -> bool:
        """Whether a check is run whose cases cannot be listed."""
        is_matched = self.pattern is None or matches_within(self.pattern, check_id)
        return is_matched and self.takes_section(check_id.partition(".")[0])

    def choose(
        self, listed: Sequence[ListedCase], unlisted: Collection[str] = ()
    ) -> list[ListedCase]:
        """The cases to run; ``unlisted`` are ids of checks without cases to choose from.

        Raises UsageError if there is nothing to run.
        """
        matching = self._matching(listed)
        chosen = [
            case
            for case in matching
            if self.takes_section(case.check.section)
            and (case.quick or not self.quick or case.id == self.pattern)
        ]
        if not chosen and not any(map(self.takes_check, unlisted)):
            raise UsageError(self._why_nothing(listed, len(matching)))
        return chosen

    def choose_checks(self, checks: Sequence[Check]) -> list[Check]:
        """The checks that are meant, as far as can be told without their cases.

        Raises UsageError if there is none.
        """
        sections = [check for check in checks if self.takes_section(check.section)]
        pattern = self.pattern
        if pattern is None:
            return sections
        named = [check for check in sections if pattern == check.id]
        chosen = named or [check for check in sections if matches_within(pattern, check.id)]
        if not chosen:
            raise UsageError(
                f"No check matches {pattern!r}.{nearest_id(pattern, (each.id for each in checks))} "
                "With NAME, `octavo conform NAME --list` looks at the cases as well."
            )
        return chosen

    def _names(self, section: str) -> bool:
        return self.sections is None or section in self.sections

    def _matching(self, listed: Sequence[ListedCase]) -> Sequence[ListedCase]:
        pattern = self.pattern
        if pattern is None:
            return listed
        # An id means itself: the line that runs one case again must not run its neighbours.
        named = [case for case in listed if pattern in (case.id, case.check.id)]
        return named or [case for case in listed if matches_within(pattern, case.id)]

    def _why_nothing(self, listed: Sequence[ListedCase], num_matching: int) -> str:
        if self.pattern is not None and num_matching == 0:
            ids = [each for case in listed for each in (case.check.id, case.id)]
            return (
                f"No check or case matches {self.pattern!r}.{nearest_id(self.pattern, ids)} "
                "`octavo conform NAME --list` shows all ids."
            )
        what = "Nothing" if self.pattern is None else f"Nothing of what matches {self.pattern!r}"
        limits = [
            f"--section {','.join(self.sections)}" if self.sections else "",
            "--quick" if self.quick else "",
            "--no-performance" if self.performance is False else "",
        ]
        return f"{what} is left to run with {' '.join(filter(None, limits)) or 'no checks at all'}."
