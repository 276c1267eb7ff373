"""Plain JSON, for models whose template asks for it without a tag: bare or in a fenced block."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.parsing.cursor import Reader
from octavo.parsing.grammar import ToolGrammar, json_call_shapes
from octavo.parsing.json_calls import read_json_calls
from octavo.parsing.reading import CallReading
from octavo.parsing.tool_format import Opener, ToolCallFormat
from octavo.parsing.tools import ToolDefinition

__all__ = ["JSON"]

_FENCE = "```"
_OPEN = f"{_FENCE}json"


def _read(reading: CallReading) -> Reader[None]:
    is_fenced = yield from reading.cursor.literal(_OPEN)
    yield from read_json_calls(reading, is_bare=True)
    if is_fenced:
        yield from reading.swallow(_FENCE)


def _grammar(tools: Sequence[ToolDefinition]) -> ToolGrammar:
    return ToolGrammar("", json_call_shapes(tools), "\n", "")


JSON = ToolCallFormat(
    "json",
    tuple(Opener(text, at_line_start=True) for text in (_OPEN, "{", "[")),
    _read,
    _grammar,
)
