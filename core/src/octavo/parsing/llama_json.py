"""Llama 3's JSON format: bare objects, or behind the tag of Python; semicolons between several.

Source: meta-llama/llama-models, models/llama3_1/prompt_format.md, "JSON based tool calling".
What else follows the tag of Python (code, ``brave_search.call(…)``) is content.
"""

from __future__ import annotations

from collections.abc import Sequence

from octavo.parsing.cursor import Reader
from octavo.parsing.grammar import ToolGrammar, json_call_shapes
from octavo.parsing.json_calls import read_json_calls
from octavo.parsing.reading import CallReading
from octavo.parsing.tool_format import Opener, ToolCallFormat
from octavo.parsing.tools import ToolDefinition

__all__ = ["LLAMA3_JSON"]

_TAG = "<|python_tag|>"


def _read(reading: CallReading) -> Reader[None]:
    yield from reading.cursor.literal(_TAG)
    yield from read_json_calls(reading, separator=";", is_bare=True)


def _grammar(tools: Sequence[ToolDefinition]) -> ToolGrammar:
    return ToolGrammar("", json_call_shapes(tools, arguments_key="parameters"), "; ", "")


LLAMA3_JSON = ToolCallFormat(
    "llama3_json",
    (Opener(_TAG), Opener("{", at_line_start=True), Opener("[", at_line_start=True)),
    _read,
    _grammar,
    (_TAG,),
)
