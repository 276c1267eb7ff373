"""Qwen3-Coder's format: one tag for each argument, and its value as plain text between them.

Source: the chat template of Qwen/Qwen3-Coder-480B-A35B-Instruct. A value's type is not written, so
it is taken from the function's schema; without one, a value is a string. A string cannot hold the
closing tag.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from octavo.parsing.cursor import MalformedCall, Reader
from octavo.parsing.grammar import ArgumentShape, CallShape, ToolGrammar
from octavo.parsing.json_reader import read_space
from octavo.parsing.object_writer import ObjectWriter
from octavo.parsing.reading import CallReading
from octavo.parsing.tool_format import Opener, ToolCallFormat
from octavo.parsing.tools import ToolDefinition
from octavo.parsing.untyped import is_string_only, typed_value

__all__ = ["QWEN3_CODER"]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_FUNCTION, _END_FUNCTION = "<function=", "</function>"
_PARAMETER, _END_PARAMETER = "<parameter=", "</parameter>"
_NAME = re.compile(r"[^<>\r\n]*")


def _read(reading: CallReading) -> Reader[None]:
    cursor = reading.cursor
    yield from cursor.literal(_OPEN)  # which the model is known to leave out
    yield from read_space(cursor)
    yield from cursor.require(_FUNCTION)
    name = yield from _read_name(reading)
    reading.call.put_name(name)
    yield from _read_parameters(reading, reading.tools.get(name))
    reading.complete_call()
    yield from reading.swallow(_CLOSE)


def _read_parameters(reading: CallReading, tool: ToolDefinition | None) -> Reader[None]:
    cursor = reading.cursor
    arguments = ObjectWriter(reading.call.put_arguments)
    schemas = tool.properties if tool else {}
    while True:
        yield from read_space(cursor)
        if (yield from cursor.literal(_END_FUNCTION)):
            arguments.close()
            return
        yield from cursor.require(_PARAMETER)
        name = yield from _read_name(reading)
        pieces: list[str] = []
        if not (yield from cursor.until(_END_PARAMETER, pieces.append)):
            raise MalformedCall(f"the argument {name!r} breaks off")
        text = "".join(pieces).removeprefix("\n").removesuffix("\n")
        arguments.member(name, typed_value(text, schemas.get(name), reading.limits.max_depth))


def _read_name(reading: CallReading) -> Reader[str]:
    pieces: list[str] = []
    yield from reading.cursor.run(_NAME, pieces.append)
    yield from reading.cursor.require(">")
    return "".join(pieces).strip()


def _grammar(tools: Sequence[ToolDefinition]) -> ToolGrammar:
    return ToolGrammar("", tuple(map(_call_shape, tools)), "\n", "")


def _call_shape(tool: ToolDefinition) -> CallShape:
    arguments = tuple(
        ArgumentShape(
            begin=f"{_PARAMETER}{key}>\n",
            schema=schema,
            end=f"\n{_END_PARAMETER}\n",
            is_required=key in tool.required,
            is_text=is_string_only(schema),
            is_plain=True,
        )
        for key, schema in tool.properties.items()
    )
    return CallShape(
        name=tool.name,
        begin=f"{_OPEN}\n{_FUNCTION}{tool.name}>\n",
        schema=tool.parameters,
        end=f"{_END_FUNCTION}\n{_CLOSE}",
        arguments=arguments,
    )


QWEN3_CODER = ToolCallFormat(
    "qwen3_coder", (Opener(_OPEN), Opener(_FUNCTION)), _read, _grammar, (_OPEN, _CLOSE)
)
