"""A value from plain text, by what a JSON schema says of its type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from octavo.parsing.cursor import Cursor, MalformedCall, ignore
from octavo.parsing.json_reader import read_value

__all__ = ["is_string_only", "typed_value"]

_TYPE_NAMES: dict[type, frozenset[str]] = {
    type(None): frozenset({"null"}),
    bool: frozenset({"boolean"}),
    int: frozenset({"integer", "number"}),
    float: frozenset({"number"}),
    str: frozenset(),
    list: frozenset({"array"}),
    dict: frozenset({"object"}),
}
_PYTHON_NAMES = {"True": "true", "False": "false", "None": "null"}  # as Jinja prints them


def typed_value(text: str, schema: Any, max_depth: int) -> Any:
    """`text` read as JSON if the schema allows what that gives, or else the text itself."""
    allowed = _allowed_types(schema)
    if not allowed:
        return text
    word = text.strip()
    try:
        value = _strict_json(_PYTHON_NAMES.get(word, word), max_depth)
    except (MalformedCall, ValueError):
        return text
    return value if _type_names(value) & allowed else text


def is_string_only(schema: Any) -> bool:
    """Whether a value by this schema is text and cannot be anything else."""
    return not _allowed_types(schema)


def _allowed_types(schema: Any) -> frozenset[str]:
    """The types besides "string" that a schema names, itself or in its alternatives."""
    if not isinstance(schema, Mapping):
        return frozenset()
    named = schema.get("type", ())
    types = {named} if isinstance(named, str) else {*named}
    if not types:
        values = schema.get("enum", [schema["const"]] if "const" in schema else ())
        types = {name for value in values for name in _TYPE_NAMES.get(type(value), ())}
    for key in ("anyOf", "oneOf"):
        for choice in schema.get(key, ()):
            types |= _allowed_types(choice)
    return frozenset(types - {"string"})


def _type_names(value: Any) -> frozenset[str]:
    names = _TYPE_NAMES[type(value)]
    is_whole = isinstance(value, float) and value.is_integer()
    return names | {"integer"} if is_whole else names


def _strict_json(text: str, max_depth: int) -> Any:
    cursor = Cursor()
    cursor.feed(text)
    cursor.end()
    for _ in read_value(cursor, ignore, max_depth):
        raise AssertionError("a reader waits for text behind the end")
    return json.loads(text)
