"""Mistral's two formats behind one mark: an array of JSON, and a name with JSON arguments.

Sources: the cookbook "Tokenization" of docs.mistral.ai (V3, V7: the array) and mistral-common
(V11: name, CALL_ID, ARGS; V13: name, ARGS). One reader takes all of them; they differ in how a call
is forced.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Sequence

from octavo.parsing.cursor import MalformedCall, Reader
from octavo.parsing.grammar import CallShape, ToolGrammar, json_call_shapes
from octavo.parsing.json_calls import read_json_calls
from octavo.parsing.json_reader import read_space, read_value
from octavo.parsing.reading import CallReading
from octavo.parsing.tool_format import Opener, ToolCallFormat
from octavo.parsing.tools import ToolDefinition

__all__ = ["MISTRAL", "MISTRAL_ARGS"]

_MARK, _ID_MARK, _ARGUMENTS_MARK = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
_WORD = re.compile(r"[-.:/\w]*")


def _read(reading: CallReading) -> Reader[None]:
    cursor = reading.cursor
    yield from cursor.require(_MARK)
    yield from read_space(cursor)
    name = yield from _read_word(reading)
    if not name:
        yield from read_json_calls(reading)
        return
    reading.call.put_name(name)
    if (yield from cursor.literal(_ID_MARK)):
        reading.call.put_id((yield from _read_word(reading)))
    yield from cursor.literal(_ARGUMENTS_MARK)
    yield from read_space(cursor)
    if (yield from cursor.peek()) != "{":
        raise MalformedCall("expected an object of arguments")
    yield from read_value(cursor, reading.call.put_arguments, reading.limits.max_depth)
    reading.complete_call()


def _read_word(reading: CallReading) -> Reader[str]:
    pieces: list[str] = []
    yield from reading.cursor.run(_WORD, pieces.append)
    return "".join(pieces)


def _array_grammar(tools: Sequence[ToolDefinition]) -> ToolGrammar:
    return ToolGrammar(f"{_MARK}[", json_call_shapes(tools), ", ", "]")


def _name_grammar(tools: Sequence[ToolDefinition]) -> ToolGrammar:
    calls = tuple(
        CallShape(tool.name, f"{_MARK}{tool.name}{_ARGUMENTS_MARK}", tool.parameters, "")
        for tool in tools
    )
    return ToolGrammar("", calls, "", "")


def _new_id() -> str:
    """Nine letters and digits: Mistral's templates refuse ids of another form."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))


_OPENERS = (Opener(_MARK),)
_TOKENS = (_MARK, _ID_MARK, _ARGUMENTS_MARK)
MISTRAL = ToolCallFormat("mistral", _OPENERS, _read, _array_grammar, _TOKENS, _new_id)
MISTRAL_ARGS = ToolCallFormat("mistral_args", _OPENERS, _read, _name_grammar, _TOKENS, _new_id)
