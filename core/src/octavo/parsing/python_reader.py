r"""Read Python literals as they arrive, by the rules of ast.literal_eval; nothing is evaluated.

Of what ast.literal_eval takes, this leaves out what has no form in JSON (bytes, sets, complex
numbers, keys that are no strings) and what no model writes in a call: triple quotes, strings that
are joined by standing side by side, and numbers of another base than ten. ``true``, ``false``,
``null`` and ``\/`` are read as JSON has them, because models mix the two.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

from octavo.parsing.cursor import Cursor, MalformedCall, Reader
from octavo.parsing.json_reader import read_space

__all__ = ["read_identifier", "read_literal"]

_PLAIN = {quote: re.compile(rf"[^{quote}\\\r\n]*") for quote in "\"'"}
_WORD = re.compile(r"[-+.\w]*")
_IDENTIFIER = re.compile(r"[-.\w]*")
_INTEGER = re.compile(r"[-+]?(?:0(?:_?0)*|[1-9](?:_?[0-9])*)")
_DIGITS = "[0-9](?:_?[0-9])*"
_FLOAT = re.compile(
    rf"[-+]?(?:{_DIGITS}\.(?:{_DIGITS})?|\.{_DIGITS}|{_DIGITS}(?=[eE]))(?:[eE][-+]?{_DIGITS})?"
)
_NAMES = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}
_ESCAPES = {
    "\n": "",
    "/": "/",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}
_NUM_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}


def read_identifier(cursor: Cursor) -> Reader[str]:
    """A name, which may have dots and, since functions have them, hyphens."""
    pieces: list[str] = []
    yield from cursor.run(_IDENTIFIER, pieces.append)
    name = "".join(pieces)
    if not name or not (name[0].isalpha() or name[0] == "_"):
        raise MalformedCall(f"{name[:40]!r} is no name")
    return name


def read_literal(cursor: Cursor, max_depth: int) -> Reader[Any]:
    """The value of one literal, with tuples as lists. Raises MalformedCall."""
    char = yield from cursor.peek()
    if char and char in "\"'":
        return (yield from _read_string(cursor, char))
    if not char or char not in "[({":
        return (yield from _read_word(cursor))
    if max_depth == 0:
        raise MalformedCall("the arguments are nested too deeply")
    cursor.take(1)
    if char == "{":
        return (yield from _read_dict(cursor, max_depth - 1))
    return (yield from _read_sequence(cursor, "]" if char == "[" else ")", max_depth - 1))


def _read_sequence(cursor: Cursor, closer: str, max_depth: int) -> Reader[Any]:
    values: list[Any] = []
    has_comma = False
    while True:
        yield from read_space(cursor)
        if (has_comma or not values) and (yield from cursor.literal(closer)):
            return values
        values.append((yield from read_literal(cursor, max_depth)))
        yield from read_space(cursor)
        if (yield from cursor.literal(",")):
            has_comma = True
            continue
        yield from cursor.require(closer)
        is_in_brackets = closer == ")" and not has_comma
        return values[0] if is_in_brackets else values


def _read_dict(cursor: Cursor, max_depth: int) -> Reader[dict[str, Any]]:
    values: dict[str, Any] = {}
    while True:
        yield from read_space(cursor)
        if (yield from cursor.literal("}")):
            return values
        key = yield from read_literal(cursor, max_depth)
        if not isinstance(key, str):
            raise MalformedCall("a key that is no string")
        yield from read_space(cursor)
        yield from cursor.require(":")
        yield from read_space(cursor)
        values[key] = yield from read_literal(cursor, max_depth)
        yield from read_space(cursor)
        if not (yield from cursor.literal(",")):
            yield from cursor.require("}")
            return values


def _read_word(cursor: Cursor) -> Reader[Any]:
    pieces: list[str] = []
    yield from cursor.run(_WORD, pieces.append)
    word = "".join(pieces)
    if word in _NAMES:
        return _NAMES[word]
    try:
        if _INTEGER.fullmatch(word):
            return int(word)
        if _FLOAT.fullmatch(word) and math.isfinite(number := float(word)):
            return number
    except ValueError as error:  # more digits than Python converts
        raise MalformedCall(str(error)) from error
    raise MalformedCall(f"{word[:40]!r} is no literal")


def _read_string(cursor: Cursor, quote: str) -> Reader[str]:
    pieces: list[str] = []
    cursor.take(1)
    while True:
        yield from cursor.run(_PLAIN[quote], pieces.append)
        if (yield from cursor.literal(quote)):
            return "".join(pieces)
        yield from cursor.require("\\")
        pieces.append((yield from _read_escape(cursor)))


def _read_escape(cursor: Cursor) -> Reader[str]:
    char = yield from cursor.peek()
    if not char or char == "\r":
        raise MalformedCall("a string breaks off")
    cursor.take(1)
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char in "\\'\"":
        return char
    if char in _NUM_HEX_DIGITS:
        digits = yield from _read_digits(cursor, "0123456789abcdefABCDEF", _NUM_HEX_DIGITS[char])
        return _character(digits, 16, _NUM_HEX_DIGITS[char])
    if char in "01234567":
        digits = yield from _read_digits(cursor, "01234567", 2)
        return _character(char + digits, 8, 1)
    if char == "N":
        return (yield from _read_named_character(cursor))
    return "\\" + char


def _read_digits(cursor: Cursor, digits: str, max_digits: int) -> Reader[str]:
    text = ""
    while len(text) < max_digits:
        char = yield from cursor.peek()
        if not char or char not in digits:
            break
        text += cursor.take(1)
    return text


def _character(digits: str, base: int, min_digits: int) -> str:
    if len(digits) < min_digits or int(digits, base) > 0x10FFFF:
        raise MalformedCall("not an escape of Python")
    return chr(int(digits, base))


def _read_named_character(cursor: Cursor) -> Reader[str]:
    pieces: list[str] = []
    yield from cursor.require("{")
    yield from cursor.run(re.compile(r"[-A-Za-z0-9 ]*"), pieces.append)
    yield from cursor.require("}")
    try:
        return unicodedata.lookup("".join(pieces))
    except KeyError as error:
        raise MalformedCall(str(error)) from error
