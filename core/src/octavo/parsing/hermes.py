"""Hermes' format, which Qwen2.5, Qwen3 and SmolLM2 and 3 write too: JSON between XML tags.

Sources: the model cards of NousResearch/Hermes-2-Pro-Llama-3-8B and
HuggingFaceTB/SmolLM2-1.7B-Instruct (an array in one tag), the chat template of Qwen/Qwen3-8B.
"""

from __future__ import annotations

from collections.abc import Sequence

from octavo.parsing.cursor import Reader
from octavo.parsing.grammar import ToolGrammar, json_call_shapes
from octavo.parsing.json_calls import read_json_calls
from octavo.parsing.reading import CallReading
from octavo.parsing.tool_format import Opener, ToolCallFormat
from octavo.parsing.tools import ToolDefinition

__all__ = ["HERMES"]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


def _read(reading: CallReading) -> Reader[None]:
    yield from reading.cursor.require(_OPEN)
    yield from read_json_calls(reading)
    yield from reading.swallow(_CLOSE)


def _grammar(tools: Sequence[ToolDefinition]) -> ToolGrammar:
    calls = json_call_shapes(tools, before=f"{_OPEN}\n", after=f"\n{_CLOSE}")
    return ToolGrammar("", calls, "\n", "")


HERMES = ToolCallFormat("hermes", (Opener(_OPEN),), _read, _grammar, (_OPEN, _CLOSE))
