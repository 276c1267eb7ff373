"""Find plugins in the metadata of installed distributions; nothing of theirs is imported."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass

from octavo.isolation import describe

__all__ = ["ENTRY_POINT_GROUP", "Candidate", "UnreadableMetadata", "find_candidates", "normalized"]

ENTRY_POINT_GROUP = "octavo.plugins"
_GROUP_HEADER = re.compile(r"^\s*\[(.*?)\]", re.MULTILINE)


@dataclass(frozen=True)
class Candidate:
    """An entry point of the group, not yet imported."""

    name: str
    distribution: str
    version: str
    entry_point: importlib.metadata.EntryPoint


@dataclass(frozen=True)
class UnreadableMetadata:
    """A distribution that mentions the group, or means to, whose metadata is of no use."""

    distribution: str
    reason: str


def normalized(name: str) -> str:
    """A distribution's name as package tools compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def find_candidates() -> tuple[list[Candidate], list[UnreadableMetadata]]:
    """Every plugin of every installed distribution, sorted by name; each is read on its own.

    ``importlib.metadata.entry_points`` would stop at the first malformed entry_points.txt.
    """
    candidates: list[Candidate] = []
    unreadable: list[UnreadableMetadata] = []
    for distribution in _distributions_with_plugins():
        name = _name_of(distribution)
        try:
            version = distribution.version or "unknown"
            declared = list(distribution.entry_points)
        except Exception as error:  # noqa: BLE001 - kept and shown
            reason = f"its installed metadata cannot be read: {describe(error)}"
            unreadable.append(UnreadableMetadata(name, reason))
            continue
        candidates += [
            Candidate(entry_point.name, name, version, entry_point)
            for entry_point in declared
            if entry_point.group == ENTRY_POINT_GROUP
        ]
        unreadable += [
            UnreadableMetadata(name, _misfiled(entry_point))
            for entry_point in declared
            if _is_nearly_the_group(entry_point.group)
        ]
    candidates.sort(key=lambda candidate: (candidate.name, candidate.distribution))
    return candidates, unreadable


def _distributions_with_plugins() -> list[importlib.metadata.Distribution]:
    """Distributions that mention the group; of two with one name, the first on sys.path."""
    found: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        if _mentions_group(distribution):
            found.setdefault(normalized(_name_of(distribution)), distribution)
    return [
        distribution for name, distribution in found.items() if not _is_shadowed(name, distribution)
    ]


def _mentions_group(distribution: importlib.metadata.Distribution) -> bool:
    # A look at the raw text spares parsing the metadata of everything that is installed.
    try:
        text = distribution.read_text("entry_points.txt") or ""
    except UnicodeDecodeError:
        return True  # reading it again reports the error under the distribution's name
    except OSError:
        return False
    groups = (group.strip() for group in _GROUP_HEADER.findall(text))
    return ENTRY_POINT_GROUP in text or any(map(_is_nearly_the_group, groups))


def _is_nearly_the_group(group: str) -> bool:
    """Whether a group is this one misspelt: ``octavo.plugin``, ``octavo_plugins``."""
    letters = re.sub(r"[^a-z]", "", group.lower())
    return group != ENTRY_POINT_GROUP and letters in ("octavoplugin", "octavoplugins")


def _misfiled(entry_point: importlib.metadata.EntryPoint) -> str:
    return (
        f"its entry point {entry_point.name!r} is in the group {entry_point.group!r}; the one that "
        f"is read is {ENTRY_POINT_GROUP!r}"
    )


def _name_of(distribution: importlib.metadata.Distribution) -> str:
    try:
        name = distribution.metadata["Name"]
    except Exception:  # noqa: BLE001 - no METADATA file: the folder's name has to do
        name = None
    return name or str(getattr(distribution, "_path", "unknown distribution"))


def _is_shadowed(name: str, distribution: importlib.metadata.Distribution) -> bool:
    """Whether Python would import an earlier distribution of this name, one without plugins."""
    try:
        first = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False
    return first.locate_file("") != distribution.locate_file("") and not _mentions_group(first)
