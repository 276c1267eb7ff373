"""Read JSON as it arrives, strictly by RFC 8259, and hand it on as it is written."""

from __future__ import annotations

import json
import re
from typing import Any

from octavo.parsing.cursor import Cursor, MalformedCall, Put, Reader, ignore

__all__ = ["is_json_object", "json_text", "read_space", "read_string", "read_value"]

_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_WORD = re.compile(r"[-+.0-9A-Za-z]*")
_SCALAR = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_CLOSERS = {"{": "}", "[": "]"}
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


def read_space(cursor: Cursor, put: Put = ignore) -> Reader[None]:
    """Take white space."""
    yield from cursor.run(_SPACE, put)


def read_value(cursor: Cursor, put: Put, max_depth: int) -> Reader[None]:
    """Take one value; the text goes to `put` piece by piece. Raises MalformedCall."""
    closers: list[str] = []
    while True:
        char = yield from cursor.peek()
        if char in _CLOSERS:
            if len(closers) == max_depth:
                raise MalformedCall(f"nested deeper than {max_depth=}")
            put(cursor.take(1))
            closers.append(_CLOSERS[char])
            is_whole = yield from _next_is(cursor, closers[-1], put)  # or it has a first member
        else:
            yield from _read_scalar(cursor, char, put)
            is_whole = True
        if is_whole and not (yield from _read_to_next_value(cursor, closers, put)):
            return
        if closers[-1] == "}":
            yield from _read_key(cursor, put)


def _read_to_next_value(cursor: Cursor, closers: list[str], put: Put) -> Reader[bool]:
    """Take the brackets that close behind a value and the comma; False if all is closed."""
    while closers:
        if (yield from _next_is(cursor, closers[-1], put)):
            put(cursor.take(1))
            closers.pop()
            continue
        yield from cursor.require(",", put)
        yield from read_space(cursor, put)
        return True
    return False


def _next_is(cursor: Cursor, char: str, put: Put) -> Reader[bool]:
    yield from read_space(cursor, put)
    return (yield from cursor.peek()) == char


def _read_key(cursor: Cursor, put: Put) -> Reader[None]:
    yield from read_string(cursor, put)
    yield from read_space(cursor, put)
    yield from cursor.require(":", put)
    yield from read_space(cursor, put)


def _read_scalar(cursor: Cursor, first: str, put: Put) -> Reader[None]:
    if first == '"':
        yield from read_string(cursor, put)
        return
    pieces: list[str] = []
    yield from cursor.run(_WORD, pieces.append)
    word = "".join(pieces)
    if not _SCALAR.fullmatch(word):
        raise MalformedCall(f"expected a JSON value, not {word[:20]!r}")
    put(word)


def read_string(cursor: Cursor, put: Put) -> Reader[None]:
    """Take one string with its quotes. Raises MalformedCall."""
    yield from cursor.require('"', put)
    while True:
        yield from cursor.run(_PLAIN, put)
        if (yield from cursor.literal('"', put)):
            return
        yield from cursor.require("\\", put)
        escape = yield from cursor.peek()
        if not escape or escape not in '"\\/bfnrtu':
            raise MalformedCall("not an escape of JSON")
        put(cursor.take(1))
        if escape == "u":
            yield from _read_hex_digits(cursor, put)


def _read_hex_digits(cursor: Cursor, put: Put) -> Reader[None]:
    for _ in range(4):
        if (yield from cursor.peek()) not in _HEX_DIGITS:
            raise MalformedCall("expected four hexadecimal digits")
        put(cursor.take(1))


def is_json_object(text: str, max_depth: int) -> bool:
    """Whether a text is one JSON object, with white space around it at most."""
    cursor = Cursor()
    cursor.feed(text.strip(" \t\r\n"))
    cursor.end()
    try:
        _run_to_end(read_value(cursor, ignore, max_depth))
    except MalformedCall:
        return False
    return text.lstrip(" \t\r\n").startswith("{") and _run_to_end(cursor.peek()) == ""


def _run_to_end(reader: Reader[Any]) -> Any:
    """What a reader returns that need not wait, since its text has ended."""
    try:
        next(reader)
    except StopIteration as end:
        return end.value
    raise AssertionError("a reader waits for text behind the end")


def json_text(value: Any) -> str:
    """`value` as JSON; half a surrogate pair is escaped, since it cannot be sent as UTF-8."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False)
    return text
