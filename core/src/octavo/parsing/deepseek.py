"""DeepSeek's formats: V3's and R1's with fenced JSON, and V3.1's without.

Sources: the chat templates of deepseek-ai/DeepSeek-V3-0324, DeepSeek-R1-0528 and DeepSeek-V3.1.
One reader takes both; they differ in how a call is forced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from octavo.parsing.cursor import MalformedCall, Reader
from octavo.parsing.grammar import CallShape, ToolGrammar
from octavo.parsing.json_reader import read_space, read_value
from octavo.parsing.reading import CallReading
from octavo.parsing.tool_format import Opener, ToolCallFormat
from octavo.parsing.tools import ToolDefinition

__all__ = ["DEEPSEEK_V3", "DEEPSEEK_V31"]

# The tokens are spelt with a full-width bar and the lower one eighth block.
_CALLS_BEGIN, _CALLS_END, _CALL_BEGIN, _CALL_END, _SEPARATOR = (
    f"<\uff5c{words.replace(' ', chr(0x2581))}\uff5c>"
    for words in (
        "tool calls begin",
        "tool calls end",
        "tool call begin",
        "tool call end",
        "tool sep",
    )
)
_FENCE = "```"
_WORD = re.compile(r"[^<`{\s]*")


def _read(reading: CallReading) -> Reader[None]:
    cursor = reading.cursor
    yield from cursor.literal(_CALLS_BEGIN)
    yield from read_space(cursor)
    yield from cursor.require(_CALL_BEGIN)
    name = yield from _read_word(reading)
    yield from cursor.require(_SEPARATOR)
    yield from read_space(cursor)
    if (yield from cursor.peek()) != "{":
        name = yield from _read_word(reading)  # what stood before it is the type, "function"
        yield from read_space(cursor)
        yield from cursor.literal(f"{_FENCE}json")
        yield from read_space(cursor)
    if (yield from cursor.peek()) != "{":
        raise MalformedCall("expected an object of arguments")
    reading.call.put_name(name)
    yield from read_value(cursor, reading.call.put_arguments, reading.limits.max_depth)
    reading.complete_call()
    yield from reading.swallow(_FENCE, _CALL_END, _CALLS_END)


def _read_word(reading: CallReading) -> Reader[str]:
    pieces: list[str] = []
    yield from read_space(reading.cursor)
    yield from reading.cursor.run(_WORD, pieces.append)
    return "".join(pieces)


def _fenced_grammar(tools: Sequence[ToolDefinition]) -> ToolGrammar:
    def begin(name: str) -> str:
        return f"{_CALL_BEGIN}function{_SEPARATOR}{name}\n{_FENCE}json\n"

    calls = _call_shapes(tools, begin, f"\n{_FENCE}{_CALL_END}")
    return ToolGrammar(_CALLS_BEGIN, calls, "\n", _CALLS_END)


def _plain_grammar(tools: Sequence[ToolDefinition]) -> ToolGrammar:
    calls = _call_shapes(tools, lambda name: f"{_CALL_BEGIN}{name}{_SEPARATOR}", _CALL_END)
    return ToolGrammar(_CALLS_BEGIN, calls, "", _CALLS_END)


def _call_shapes(
    tools: Sequence[ToolDefinition], begin: Callable[[str], str], end: str
) -> tuple[CallShape, ...]:
    return tuple(CallShape(tool.name, begin(tool.name), tool.parameters, end) for tool in tools)


_OPENERS = (Opener(_CALLS_BEGIN), Opener(_CALL_BEGIN))
_TOKENS = (_CALLS_BEGIN, _CALLS_END, _CALL_BEGIN, _CALL_END, _SEPARATOR)
DEEPSEEK_V3 = ToolCallFormat("deepseek_v3", _OPENERS, _read, _fenced_grammar, _TOKENS)
DEEPSEEK_V31 = ToolCallFormat("deepseek_v31", _OPENERS, _read, _plain_grammar, _TOKENS)
