"""conformance.toml: what the author of a backend knows to fail, each with a kind and a reason.

The file is data of the plugin's package. It is strict both ways: a failure that it does not declare
fails, and so does a declared gap that has been closed.
"""

from __future__ import annotations

import importlib.resources
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any

from octavo.errors import PluginError
from octavo.suggest import choices, did_you_mean
from octavo.testing.patterns import matches_whole, nearest_id

if TYPE_CHECKING:
    from octavo.plugins import PluginRecord
    from octavo.testing.conform import Result

__all__ = ["Gap", "GapTable", "parse_gaps", "read_gaps"]

_FILE_NAME = "conformance.toml"
_SCHEMA = 1
_KINDS = {
    "notimpl": "could be done, and nobody has",
    "notyet": "waits for something outside the backend: a driver, a library, a compiler",
    "never": "cannot be done on this hardware",
}
"""What a gap can be, and what each kind says."""

_KEYS = ("check", "kind", "reason", "backend")
_MAX_FILE_BYTES = 1 << 18  # a thousand entries


@dataclass(frozen=True)
class Gap:
    """One entry: the checks or cases that fail, and why."""

    check: str  # a pattern over the ids of checks and cases
    kind: str
    reason: str
    backend: str | None = None  # None: every backend of the plugin


@dataclass(frozen=True)
class GapTable:
    """The gaps of one backend."""

    gaps: tuple[Gap, ...] = ()
    source: str = _FILE_NAME
    """Where they were read, for messages."""

    def gap_of(self, check_id: str, case_id: str) -> Gap | None:
        """The gap that covers a case."""
        return next((gap for gap in self.gaps if _covers(gap, check_id, case_id)), None)

    def judge(self, result: Result) -> Result:
        """What becomes of a result: a declared failure is a gap, a closed gap a failure."""
        gap = self.gap_of(result.check, result.id)
        if gap is None or result.status == "blocked":
            return result
        if result.status in ("passed", "measured"):
            closed = (
                f"This passes, but {self.source} declares it a gap ({gap.kind}: {gap.reason}). The "
                f"gap is closed: delete the entry {gap.check!r}, or narrow it to what still fails."
            )
            return replace(result, status="failed", message=closed, look=self.source, where="")
        status = "gap" if result.status == "failed" else result.status
        return replace(result, status=status, gap=gap)

    def check_against(self, cases: Iterable[tuple[str, str]]) -> None:
        """Hold the gaps to the suite's (check id, case id).

        Raises PluginError for a pattern that matches nothing, and for two that match one case.
        """
        cases = list(cases)
        for gap in self.gaps:
            if not any(_covers(gap, *case) for case in cases):
                ids = [each for case in cases for each in case]
                raise PluginError(
                    f"{self.source}: no check or case is called {gap.check!r}."
                    f"{nearest_id(gap.check, ids)} `octavo conform NAME --list` shows all ids."
                )
        for case in cases:
            covering = [gap.check for gap in self.gaps if _covers(gap, *case)]
            if len(covering) > 1:
                raise PluginError(
                    f"{self.source}: {covering[0]!r} and {covering[1]!r} both match {case[1]!r}; "
                    "narrow one of them, so that each case has one reason."
                )


def read_gaps(record: PluginRecord, backend: str) -> GapTable:
    """The gaps that a plugin's package declares for one of its backends. Raises PluginError."""
    file = _find(record.module)
    if file is None:
        return GapTable()
    source = f"{_FILE_NAME} of {record.distribution}"
    table = _read_toml(file, source)
    known_backends = tuple(spec.name for spec in record.backends)
    gaps = parse_gaps(table, source, known_backends)
    return GapTable(tuple(gap for gap in gaps if gap.backend in (None, backend)), source)


def parse_gaps(
    table: Mapping[str, Any], source: str, known_backends: Iterable[str]
) -> tuple[Gap, ...]:
    """The entries of a file. Raises PluginError naming the fault."""
    _check_keys(table, ("schema", "gaps"), f"{source}, at the top level")
    if table.get("schema") != _SCHEMA or isinstance(table.get("schema"), bool):
        raise PluginError(
            f"{source} has schema = {table.get('schema')!r}; this octavo reads schema = {_SCHEMA}."
        )
    entries = table.get("gaps", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise PluginError(f"{source}: gaps is {entries!r}; expected [[gaps]] tables.")
    known = tuple(known_backends)
    return tuple(
        _gap(entry, f"{source}, gap {number}", known) for number, entry in enumerate(entries, 1)
    )


def _gap(entry: Mapping[str, Any], place: str, known_backends: tuple[str, ...]) -> Gap:
    _check_keys(entry, _KEYS, place)
    for key, value in entry.items():
        if not isinstance(value, str) or not value.strip():
            raise PluginError(f"{place}: {key} is {value!r}; expected a text that is not empty.")
    missing = [key for key in _KEYS if key not in entry and key != "backend"]
    if missing:
        raise PluginError(f"{place} has no {choices(missing)}; each gap needs check, kind, reason.")
    _check_choice(entry["kind"], _KINDS, f"{place}: kind")
    if "backend" in entry:
        _check_choice(entry["backend"], known_backends, f"{place}: backend")
    return Gap(**entry)


def _check_choice(value: str, known: Iterable[str], place: str) -> None:
    known = tuple(known)
    if value not in known:
        raise PluginError(
            f"{place} is {value!r}.{did_you_mean(value, known)} Expected one of: {choices(known)}."
        )


def _check_keys(table: Iterable[str], known: Iterable[str], place: str) -> None:
    known = tuple(known)
    for key in table:
        if key not in known:
            raise PluginError(
                f"{place}: unknown key {key!r}.{did_you_mean(key, known)} "
                f"Known keys: {choices(known)}."
            )


def _read_toml(file: Traversable, source: str) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
        if len(content) <= _MAX_FILE_BYTES:
            return tomllib.loads(content.decode("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PluginError(f"{source} cannot be read: {error}.") from error
    except RecursionError as error:
        raise PluginError(f"{source} cannot be read: its values are nested too deep.") from error
    raise PluginError(
        f"{source} has more than {_MAX_FILE_BYTES} bytes, which no list of gaps needs."
    )


def _find(module: str) -> Traversable | None:
    """The file in the package of the plugin's module, which has been imported; nothing else is."""
    is_package = hasattr(sys.modules.get(module), "__path__")
    package = module if is_package else module.rpartition(".")[0]
    if not package:  # a plugin of one module has no package to put data in
        return None
    file = importlib.resources.files(package) / _FILE_NAME
    return file if file.is_file() else None


def _covers(gap: Gap, check_id: str, case_id: str) -> bool:
    return matches_whole(gap.check, check_id, case_id)
