"""JSON bodies that could do harm further in are refused here: too deep, ambiguous, not Unicode."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from octavo.server.errors import ApiError

__all__ = ["MAX_DEPTH", "check_json"]

MAX_DEPTH = 128
"""Nesting of a body; schemas of tools have about a dozen levels."""
_MAX_INTEGER_DIGITS = 20  # an unsigned integer of 64 bits

_BRACKETS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_LONG_DIGITS = re.compile(rb"[0-9]{%d}" % (_MAX_INTEGER_DIGITS + 1))
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def check_json(body: bytes) -> None:
    """Raise ApiError (400) for a body that is not plain, finite, unambiguous JSON in UTF-8."""
    _check_depth(body)
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(f"byte {error.start} is not UTF-8")
    try:
        value = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole if _LONG_DIGITS.search(body) else None,
            object_pairs_hook=_without_duplicates,
        )
    except json.JSONDecodeError as error:
        _refuse(f"{error.msg} (line {error.lineno}, column {error.colno})")
    if _SURROGATE_ESCAPE.search(body):
        _check_surrogates(value)


def _check_depth(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _BRACKETS.finditer(body):
        token = match[0]
        if token in (b"[", b"{"):
            depth += 1
            if depth > MAX_DEPTH:
                _refuse(f"it is nested more than {MAX_DEPTH} levels deep")
        elif token in (b"]", b"}"):
            depth -= 1


def _check_surrogates(value: Any) -> None:
    r"""Half a character, such as a lone \ud800, can be held by a str but never be sent again."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        _refuse("it holds a lone surrogate (\\ud800 to \\udfff), which is half a character")


def _refuse_constant(name: str) -> NoReturn:
    _refuse(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        _refuse(f"the number {_shown(text)} is out of range")
    return value


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > _MAX_INTEGER_DIGITS:
        _refuse(f"the number {_shown(text)} is out of range")
    return int(text)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                _refuse(f"the name {_shown(name)!r} occurs twice in one object")
            seen.add(name)
    return found


def _shown(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}…"


def _refuse(reason: str) -> NoReturn:
    raise ApiError(f"The body cannot be used as JSON: {reason}.", code="invalid_json")
