"""Patterns over the ids of checks and cases: ``*`` stands for any text, all else for itself.

Shell patterns will not do: ``[`` and ``?`` stand in ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from octavo.suggest import did_you_mean

__all__ = ["matches_whole", "matches_within", "nearest_id"]


def matches_whole(pattern: str, *ids: str) -> bool:
    """Whether the pattern is one of the ids, from end to end."""
    return any(_compiled(pattern).fullmatch(each) for each in ids)


def matches_within(pattern: str, *ids: str) -> bool:
    """Whether the pattern occurs in one of the ids; upper and lower case are one."""
    return any(_compiled(pattern.lower()).search(each.lower()) for each in ids)


def nearest_id(pattern: str, ids: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for a pattern that matches none of the ids."""
    return did_you_mean(pattern.strip("*"), dict.fromkeys(ids))


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
