"""Calls that are JSON objects of a name and arguments: one, several, or an array of them."""

from __future__ import annotations

import json

from octavo.parsing.cursor import MalformedCall, Reader, ignore
from octavo.parsing.json_reader import is_json_object, read_space, read_string, read_value
from octavo.parsing.reading import CallReading

__all__ = ["read_json_call", "read_json_calls"]

_ARGUMENT_KEYS = frozenset({"arguments", "parameters"})
_CALL_KEYS = frozenset({"name", "id", "type"}) | _ARGUMENT_KEYS


def read_json_calls(
    reading: CallReading, *, separator: str = "", is_bare: bool = False
) -> Reader[None]:
    """Read objects with `separator` between them, or one array of objects.

    `is_bare`: nothing but their keys tells calls from other JSON, so they must have arguments, and
    no key that calls do not have.
    """
    cursor = reading.cursor
    yield from read_space(cursor)
    if (yield from cursor.literal("[")):
        yield from _read_array(reading, is_bare=is_bare)
        return
    yield from read_json_call(reading, is_bare=is_bare)
    while True:
        yield from read_space(cursor)
        if separator and (yield from cursor.literal(separator)):
            yield from read_space(cursor)
        if (yield from cursor.peek()) != "{":
            return
        yield from read_json_call(reading, is_bare=is_bare)


def _read_array(reading: CallReading, *, is_bare: bool) -> Reader[None]:
    cursor = reading.cursor
    while True:
        yield from read_space(cursor)
        yield from read_json_call(reading, is_bare=is_bare)
        yield from read_space(cursor)
        if (yield from cursor.literal("]")):
            reading.commit()
            return
        yield from cursor.require(",")


def read_json_call(reading: CallReading, *, is_bare: bool = False) -> Reader[None]:
    """Read one object of a call. Raises MalformedCall at the first character that is wrong."""
    cursor = reading.cursor
    keys: set[str] = set()
    yield from cursor.require("{")
    while True:
        yield from read_space(cursor)
        key = yield from _read_text(reading)
        is_call_key = key in _CALL_KEYS
        if (is_bare and not is_call_key) or (is_call_key and key in keys):
            raise MalformedCall(f"the key {key[:40]!r} is not one of a call, or there twice")
        keys.add(key)
        if len(keys & _ARGUMENT_KEYS) > 1:
            raise MalformedCall("a call with arguments and parameters")
        yield from read_space(cursor)
        yield from cursor.require(":")
        yield from read_space(cursor)
        yield from _read_member(reading, key)
        yield from read_space(cursor)
        if (yield from cursor.literal("}")):
            break
        yield from cursor.require(",")
    if "name" not in keys or (is_bare and not keys & _ARGUMENT_KEYS):
        raise MalformedCall("an object that is no call")
    reading.complete_call()


def _read_member(reading: CallReading, key: str) -> Reader[None]:
    if key == "name":
        reading.call.put_name((yield from _read_text(reading)))
    elif key in _ARGUMENT_KEYS:
        yield from _read_arguments(reading)
    elif key == "id" and (yield from reading.cursor.peek()) == '"':
        reading.call.put_id((yield from _read_text(reading)))
    else:
        yield from read_value(reading.cursor, ignore, reading.limits.max_depth)


def _read_arguments(reading: CallReading) -> Reader[None]:
    """An object; null, which is an empty one; or a string that holds the text of an object."""
    char = yield from reading.cursor.peek()
    if char == "{":
        yield from read_value(reading.cursor, reading.call.put_arguments, reading.limits.max_depth)
    elif char == '"':
        text = yield from _read_text(reading)
        if not is_json_object(text, reading.limits.max_depth):
            raise MalformedCall("arguments that are a string, and not one of an object")
        reading.call.put_arguments(text.strip())
    else:
        yield from reading.cursor.require("null")


def _read_text(reading: CallReading) -> Reader[str]:
    pieces: list[str] = []
    yield from read_string(reading.cursor, pieces.append)
    text = json.loads("".join(pieces))
    if not isinstance(text, str):
        raise MalformedCall("expected a string")
    return text
