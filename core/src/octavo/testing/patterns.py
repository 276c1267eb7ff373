"""Patterns over the ids of checks and cases: ``*`` stands for any text, all else for itself.

Shell patterns will not do: ``[`` and ``?`` stand in ids.
"""

from __future__ import annotations

from collections.abc import Iterable

from octavo.suggest import did_you_mean

__all__ = ["matches_whole", "matches_within", "nearest_id"]


def matches_whole(pattern: str, *ids: str) -> bool:
    """Whether the pattern is one of the ids, from end to end."""
    return any(_is_match(pattern, each) for each in ids)


def matches_within(pattern: str, *ids: str) -> bool:
    """Whether the pattern occurs in one of the ids; upper and lower case are one."""
    return any(_is_match(f"*{pattern.lower()}*", each.lower()) for each in ids)


def nearest_id(pattern: str, ids: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for a pattern that matches none of the ids."""
    return did_you_mean(pattern.strip("*"), dict.fromkeys(ids))


def _is_match(pattern: str, text: str) -> bool:
    """Each part as early as it goes: nothing is tried twice, however many ``*`` there are."""
    first, *others = pattern.split("*")
    if not others:
        return text == pattern
    if not text.startswith(first):
        return False
    *middle, last = others
    end = len(first)
    for part in middle:
        start = text.find(part, end)
        if start < 0:
            return False
        end = start + len(part)
    return text.endswith(last, end)
