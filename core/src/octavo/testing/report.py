"""What a run of the suite found, as one record: counted for people, and as JSON for programs."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from octavo.testing.conform import Result, Status

__all__ = ["SCHEMA", "CheckSummary", "Report"]

SCHEMA = 1
_NEVER_GATES = "performance."


@dataclass(frozen=True)
class CheckSummary:
    """One check and how many of its cases came to what."""

    id: str
    section: str
    about: str
    counts: Mapping[str, int]


@dataclass
class Report:
    """A run as it goes on; what is known is in it at any time."""

    backend: str
    distribution: Mapping[str, str]
    device: Mapping[str, Any]
    attention_backend: str | None
    capabilities: Mapping[str, Any] | None
    """None if the backend cannot be loaded."""
    quick: bool
    sections: tuple[str, ...] | None
    """None: all."""
    pattern: str | None
    checks: Mapping[str, str]
    """What each check that was run proves, by its id."""
    started: str
    """In UTC, ISO 8601."""
    results: list[Result] = field(default_factory=list)
    duration_s: float = 0.0
    was_interrupted: bool = False

    @property
    def failures(self) -> list[Result]:
        """What is wrong with the backend. Performance is reported and never fails."""
        return [
            result
            for result in self.results
            if result.status in ("failed", "blocked") and not result.check.startswith(_NEVER_GATES)
        ]

    @property
    def counts(self) -> dict[str, int]:
        """How many cases came to what."""
        return _counts(self.results)

    def by_check(self) -> list[CheckSummary]:
        """One summary for each check that has a result, in the order in which they were run."""
        results: dict[str, list[Result]] = {}
        for result in self.results:
            results.setdefault(result.check, []).append(result)
        return [
            CheckSummary(check, check.partition(".")[0], self.checks.get(check, ""), _counts(group))
            for check, group in results.items()
        ]

    def as_json(self) -> dict[str, Any]:
        """The record that docs/conformance.md describes."""
        return {
            "schema": SCHEMA,
            "octavo": importlib.metadata.version("octavo"),
            "api_version": _api_version(),
            "backend": self.backend,
            "distribution": dict(self.distribution),
            "device": dict(self.device),
            "attention_backend": self.attention_backend,
            "capabilities": self.capabilities,
            "platform": {
                "python": platform.python_version(),
                "numpy": importlib.metadata.version("numpy"),
                "system": platform.system(),
                "machine": platform.machine(),
            },
            "quick": self.quick,
            "sections": self.sections,
            "pattern": self.pattern,
            "checks": [asdict(summary) for summary in self.by_check()],
            "results": [_record(result) for result in self.results],
            "summary": {**self.counts, "ok": not self.failures and not self.was_interrupted},
            "started": self.started,
            "duration_s": round(self.duration_s, 3),
            "interrupted": self.was_interrupted,
        }


def _counts(results: Iterable[Result]) -> dict[str, int]:
    found = Counter(result.status for result in results)
    return {status: found[status] for status in get_args(Status)}


def _record(result: Result) -> dict[str, Any]:
    # JSON knows neither infinity nor NaN.
    measured = {
        name: value if math.isfinite(value) else None for name, value in result.measured.items()
    }
    section = result.check.partition(".")[0]
    return {
        **asdict(result),
        "section": section,
        "seconds": round(result.seconds, 6),
        "measured": measured,
    }


def _api_version() -> int:
    from octavo.spec import API_VERSION

    return API_VERSION
