"""How a call can be forced: texts and JSON schemas, as data for a grammar engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octavo.parsing.tools import ToolDefinition

__all__ = ["ArgumentShape", "CallShape", "ToolGrammar", "json_call_shapes"]


@dataclass(frozen=True)
class ArgumentShape:
    """One argument of a format that writes them one by one: `begin`, the value, `end`."""

    begin: str
    schema: Any  # the argument's JSON schema
    end: str
    is_required: bool
    is_text: bool = False
    """The value is the string itself, without quotes, up to `end`; otherwise it is JSON."""
    is_plain: bool = False
    """Of a value that may be a string or something else, strings are written without quotes."""


@dataclass(frozen=True)
class CallShape:
    """A call of one function: `begin`, the arguments, `end`.

    With `arguments` None they are one JSON object by `schema`. Otherwise they are the given
    arguments in order, optional ones left out or not, with `argument_separator` between them.
    """

    name: str
    begin: str
    schema: Mapping[str, Any]
    end: str
    arguments: tuple[ArgumentShape, ...] | None = None
    argument_separator: str = ""


@dataclass(frozen=True)
class ToolGrammar:
    """`begin`, one of `calls`, any number of `separator` and another one of `calls`, `end`."""

    begin: str
    calls: tuple[CallShape, ...]
    separator: str | None  # None: the format has one call in an answer
    end: str


def json_call_shapes(
    tools: Sequence[ToolDefinition],
    *,
    before: str = "",
    after: str = "",
    arguments_key: str = "arguments",
) -> tuple[CallShape, ...]:
    """Calls as an object of a name and arguments, with a tag before and a tag after it."""
    return tuple(
        CallShape(
            name=tool.name,
            begin=f'{before}{{"name": {json.dumps(tool.name)}, "{arguments_key}": ',
            schema=tool.parameters,
            end=f"}}{after}",
        )
        for tool in tools
    )
