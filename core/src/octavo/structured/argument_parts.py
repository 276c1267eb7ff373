"""The value of an argument that stands by itself: JSON, or text without quotes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from octavo.errors import UsageError
from octavo.parsing import ArgumentShape
from octavo.structured.limits import TIDY_SPACE
from octavo.structured.params import StructuredOutputs
from octavo.structured.parts import ExactText, Formed, InOrder, OneOf, Part, TextValue

__all__ = ["argument_value"]

_ANYTHING = r"(.|\n)*"
_ALTERNATIVES = ("anyOf", "oneOf")
_UNKNOWN_OF_TEXT = ("allOf", "not", "if", "$ref", "$dynamicRef")


def argument_value(argument: ArgumentShape, schema: Any) -> Part:
    """The value and the text behind it."""
    if not (argument.is_text or argument.is_plain):
        return InOrder((_json(schema), ExactText(argument.end)))
    return OneOf(tuple(_plain_values(argument, schema)))


def _plain_values(argument: ArgumentShape, schema: Any) -> list[Part]:
    """Strings as they are, and everything else as JSON."""
    if not isinstance(schema, Mapping):
        return [_text(argument, {})] if schema is not False else []
    if "enum" in schema or "const" in schema:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        return [ExactText(_written(value) + argument.end) for value in values]
    for key in _ALTERNATIVES:
        if key in schema:
            shared = {name: value for name, value in schema.items() if name != key}
            return [
                part
                for choice in schema[key]
                for part in _plain_values(argument, {**shared, **choice})
            ]
    types = schema.get("type", ["string"])  # without a type, parsers take it for text
    types = [types] if isinstance(types, str) else list(types)
    parts: list[Part] = [_text(argument, schema)] if "string" in types else []
    others = [kind for kind in types if kind != "string"]
    if others:
        parts.append(InOrder((_json({**schema, "type": others}), ExactText(argument.end))))
    return parts


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _text(argument: ArgumentShape, schema: Mapping[str, Any]) -> Part:
    unknown = [key for key in _UNKNOWN_OF_TEXT if key in schema]
    if unknown:
        raise UsageError(
            f"structured_outputs.json cannot be used: {unknown[0]!r} in the schema of a string "
            "cannot be enforced, since this model writes strings of calls without quotes."
        )
    pattern = schema.get("pattern")
    return TextValue(
        end=argument.end,
        closer=argument.end.strip(),
        least=schema.get("minLength", 0),
        most=schema.get("maxLength"),
        pattern=None if pattern is None else _whole(pattern),
    )


def _whole(pattern: str) -> str:
    """A regex of the whole text, from one that is to be found in it."""
    has_end = pattern.endswith("$") and not pattern.endswith("\\$")
    before = "" if pattern.startswith("^") else _ANYTHING
    body = pattern.removeprefix("^")
    return f"{before}({body[:-1]})" if has_end else f"{before}({body}){_ANYTHING}"


def _json(schema: Any) -> Part:
    form = schema if isinstance(schema, Mapping) else {} if schema is not False else {"not": {}}
    return Formed(StructuredOutputs(json=form, whitespace_pattern=TIDY_SPACE))
