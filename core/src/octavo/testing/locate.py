"""Where in a backend's source to look: the implementations of the members that a check names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["locate"]

_MEMBER = re.compile(r"\b(ops|backend|spec)\.(\w+)", re.IGNORECASE)
_PORTABLE = "octavo.ops."


def locate(subject: Subject, look: str) -> str:
    """``package/file.py:line Class.member`` for each member in ``look``, joined by a comma.

    A member is written as ``ops.linear``, ``backend.copy_blocks`` or ``spec.probe``; what cannot be
    found is left out, and so are members of a backend that has not been loaded.
    """
    members = dict.fromkeys((owner.lower(), name) for owner, name in _MEMBER.findall(look))
    places: list[str] = []
    for owner, name in members:
        try:
            places += _places(subject, owner, name)
        except Exception:  # noqa: BLE001, S112 - a help only; the check has said what is wrong
            continue
    return ", ".join(dict.fromkeys(places))


def _places(subject: Subject, owner: str, name: str) -> Iterator[str]:
    if owner == "spec":
        place = _place_of(getattr(subject.spec, name))
    elif not subject.is_loaded:
        return
    elif owner == "ops":
        place = _place_of(getattr(subject.ops, name))
    else:
        place = _place_of_member(type(subject.backend), name)
    if place is not None:
        yield place


def _place_of_member(backend: type, name: str) -> str | None:
    """A method or property; the class, where the member is mere data."""
    # Off the class: reading a property of an object would run it.
    member = inspect.getattr_static(backend, name, None)
    place = _place_of(member)
    if place is None and "__init__" in vars(backend):
        place = _place_of(vars(backend)["__init__"])
    return place


def _place_of(member: Any) -> str | None:
    """Where a function, method or property is written; None for what has no Python source."""
    if isinstance(member, property):
        member = member.fget
    function = inspect.unwrap(getattr(member, "__func__", member))
    function = getattr(function, "func", function)  # functools.partial
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    path, module = PurePath(code.co_filename), function.__module__
    depth = module.count(".") + (2 if path.stem == "__init__" else 1)
    file = "/".join(path.parts[-depth:])
    note = " (Octavo's portable default)" if module.startswith(_PORTABLE) else ""
    return f"{file}:{code.co_firstlineno} {function.__qualname__}{note}"
