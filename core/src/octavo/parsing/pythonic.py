"""Llama 3.2's and 4's pythonic format: a list of calls with keyword arguments.

Sources: meta-llama/llama-models, models/llama3_2/text_prompt_format.md and
models/llama4/prompt_format.md, "Zero shot function calling".
"""

from __future__ import annotations

from collections.abc import Sequence

from octavo.parsing.cursor import Reader
from octavo.parsing.grammar import ArgumentShape, CallShape, ToolGrammar
from octavo.parsing.json_reader import read_space
from octavo.parsing.object_writer import ObjectWriter
from octavo.parsing.python_reader import read_identifier, read_literal
from octavo.parsing.reading import CallReading
from octavo.parsing.tool_format import Opener, ToolCallFormat
from octavo.parsing.tools import ToolDefinition

__all__ = ["PYTHONIC"]

_OPEN, _CLOSE = "<|python_start|>", "<|python_end|>"


def _read(reading: CallReading) -> Reader[None]:
    cursor = reading.cursor
    is_tagged = yield from cursor.literal(_OPEN)
    yield from read_space(cursor)
    yield from cursor.require("[")
    while True:
        yield from read_space(cursor)
        yield from _read_call(reading)
        yield from read_space(cursor)
        if (yield from cursor.literal("]")):
            break
        yield from cursor.require(",")
    reading.commit()
    if is_tagged:
        yield from reading.swallow(_CLOSE)


def _read_call(reading: CallReading) -> Reader[None]:
    cursor = reading.cursor
    name = yield from read_identifier(cursor)
    yield from cursor.require("(")
    reading.call.put_name(name)
    arguments = ObjectWriter(reading.call.put_arguments)
    yield from read_space(cursor)
    while not (yield from cursor.literal(")")):
        key = yield from read_identifier(cursor)
        yield from read_space(cursor)
        yield from cursor.require("=")
        yield from read_space(cursor)
        value = yield from read_literal(cursor, reading.limits.max_depth)
        arguments.member(key, value)
        yield from read_space(cursor)
        if not (yield from cursor.literal(",")):
            yield from cursor.require(")")
            break
        yield from read_space(cursor)
    arguments.close()
    reading.complete_call()


def _grammar(tools: Sequence[ToolDefinition]) -> ToolGrammar:
    return ToolGrammar("[", tuple(map(_call_shape, tools)), ", ", "]")


def _call_shape(tool: ToolDefinition) -> CallShape:
    arguments = tuple(
        ArgumentShape(f"{key}=", schema, "", key in tool.required)
        for key, schema in tool.properties.items()
    )
    return CallShape(tool.name, f"{tool.name}(", tool.parameters, ")", arguments, ", ")


PYTHONIC = ToolCallFormat(
    "pythonic",
    (Opener(_OPEN), Opener("[", at_line_start=True)),
    _read,
    _grammar,
    (_OPEN, _CLOSE),
)
