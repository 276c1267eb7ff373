"""What a registered spec must look like; checked when a plugin hands it over."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from octavo.isolation import Fault
from octavo.spec import API_VERSION, AttentionSpec, BackendSpec, ModelSpec, ParserSpec

__all__ = ["check_api_version", "check_spec"]

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_RESERVED_NAMES = frozenset({"auto", "order", "portable"})

Check = tuple[str, Callable[[Any], bool]]  # what is expected, and whether a value is that


def _is_name(value: Any) -> bool:
    return (
        isinstance(value, str)
        and _NAME.fullmatch(value) is not None
        and value not in _RESERVED_NAMES
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_tuple_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, tuple)
        and bool(value)
        and all(map(check, value))
        and len(set(value)) == len(value)
    )


_NAME_CHECK: Check = (
    "a name of a-z, 0-9, _ and - that is not one of " + ", ".join(sorted(_RESERVED_NAMES)),
    _is_name,
)
_CALLABLE_CHECK: Check = ("a callable", callable)
_TEXT_CHECK: Check = ("a string that is not empty", _is_text)

_FIELD_CHECKS: dict[type, dict[str, Check]] = {
    BackendSpec: {
        "name": _NAME_CHECK,
        "device_kinds": ("a tuple of distinct device kinds, not empty", _is_tuple_of(_is_name)),
        "summary": _TEXT_CHECK,
        "probe": _CALLABLE_CHECK,
        "load": _CALLABLE_CHECK,
        "automatic": ("True or False", lambda value: isinstance(value, bool)),
    },
    AttentionSpec: {
        "name": _NAME_CHECK,
        "backend": _NAME_CHECK,
        "ops": ("a tuple of distinct op names, not empty", _is_tuple_of(_is_text)),
        "load": _CALLABLE_CHECK,
        "supports": _CALLABLE_CHECK,
        "summary": ("a string", lambda value: isinstance(value, str)),
    },
    ModelSpec: {
        "architecture": _TEXT_CHECK,
        "build": _CALLABLE_CHECK,
        "backend": ("a backend's name or None", lambda value: value is None or _is_name(value)),
    },
    ParserSpec: {
        "name": _NAME_CHECK,
        "kind": ("'tool_calls' or 'reasoning'", lambda value: value in ("tool_calls", "reasoning")),
        "summary": _TEXT_CHECK,
        "load": _CALLABLE_CHECK,
        "detect": _CALLABLE_CHECK,
    },
}


def check_spec(spec: Any, expected_type: type, distribution: str) -> None:
    """Raise Fault unless ``spec`` is a complete spec of the expected type and a served version."""
    if not isinstance(spec, expected_type):
        raise Fault(
            f"registered {_short_repr(spec)} of type {type(spec).__name__}; "
            f"expected octavo.api.{expected_type.__name__}"
        )
    # The version comes first: a later version may give the other fields another meaning.
    check_api_version(getattr(spec, "api_version", None), distribution)
    for field, (expectation, is_good) in _FIELD_CHECKS[expected_type].items():
        value = getattr(spec, field)
        if not is_good(value):
            raise Fault(
                f"registered a {expected_type.__name__} with {field}={_short_repr(value)}; "
                f"expected {expectation}"
            )


def check_api_version(version: Any, distribution: str, current: int = API_VERSION) -> None:
    """Raise Fault unless ``version`` is the current one or the one before (the first one is 1)."""
    oldest = max(1, current - 1)
    if not isinstance(version, int) or isinstance(version, bool):
        raise Fault(f"api_version is {_short_repr(version)}; expected the integer {current}")
    if version > current:
        raise Fault(
            f"needs plugin API version {version}, but this octavo has {current}: "
            "upgrade octavo (pip install -U octavo)"
        )
    if version < oldest:
        served = str(current) if oldest == current else f"{oldest} and {current}"
        raise Fault(
            f"speaks plugin API version {version}, but this octavo serves {served}: "
            f"upgrade {distribution} (pip install -U {distribution})"
        )


def _short_repr(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - __repr__ is a plugin's code
        text = "(a value that cannot be printed)"
    return text if len(text) <= 80 else text[:77] + "..."
