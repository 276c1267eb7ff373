"""Tool calls and reasoning out of what a model writes, whole or as it arrives."""

from octavo.parsing.answer import ParsedAnswer, ParsedCall, collect
from octavo.parsing.answer_parser import AnswerParser
from octavo.parsing.clues import ModelClues, clues_of
from octavo.parsing.cursor import Cursor, MalformedCall, Put, Reader
from octavo.parsing.events import (
    ContentDelta,
    Event,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
    merge_events,
)
from octavo.parsing.grammar import ArgumentShape, CallShape, ToolGrammar, json_call_shapes
from octavo.parsing.json_calls import read_json_call, read_json_calls
from octavo.parsing.json_reader import read_space, read_value
from octavo.parsing.limits import ParsingLimits
from octavo.parsing.reading import CallReading
from octavo.parsing.reasoning import ReasoningFormat, ReasoningParser
from octavo.parsing.registry import ParserRegistry
from octavo.parsing.tool_format import Opener, ToolCallFormat
from octavo.parsing.tool_parser import ToolCallParser
from octavo.parsing.tools import ToolDefinition, tool_definitions

__all__ = [
    "AnswerParser",
    "ArgumentShape",
    "CallReading",
    "CallShape",
    "ContentDelta",
    "Cursor",
    "Event",
    "MalformedCall",
    "ModelClues",
    "Opener",
    "ParsedAnswer",
    "ParsedCall",
    "ParserRegistry",
    "ParsingLimits",
    "Put",
    "Reader",
    "ReasoningDelta",
    "ReasoningFormat",
    "ReasoningParser",
    "ToolCallArguments",
    "ToolCallBegin",
    "ToolCallEnd",
    "ToolCallFormat",
    "ToolCallParser",
    "ToolDefinition",
    "ToolGrammar",
    "clues_of",
    "collect",
    "json_call_shapes",
    "merge_events",
    "read_json_call",
    "read_json_calls",
    "read_space",
    "read_value",
    "tool_definitions",
]
