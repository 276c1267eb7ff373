"""A parsed answer as a whole: what its events add up to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from octavo.parsing.events import (
    ContentDelta,
    Event,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
)

__all__ = ["ParsedAnswer", "ParsedCall", "collect"]


@dataclass(frozen=True)
class ParsedCall:
    """One call; ``arguments`` is the text of a JSON object if the call is complete."""

    id: str
    name: str
    arguments: str
    is_known: bool
    is_complete: bool


@dataclass(frozen=True)
class ParsedAnswer:
    """The text for the reader, the reasoning before it, and the calls in order."""

    content: str
    reasoning: str
    tool_calls: tuple[ParsedCall, ...]


def collect(events: Iterable[Event]) -> ParsedAnswer:
    """What the events of one answer add up to."""
    content: list[str] = []
    reasoning: list[str] = []
    begun: dict[int, ToolCallBegin] = {}
    arguments: dict[int, list[str]] = {}
    complete: set[int] = set()
    for event in events:
        match event:
            case ContentDelta():
                content.append(event.text)
            case ReasoningDelta():
                reasoning.append(event.text)
            case ToolCallBegin():
                begun[event.index], arguments[event.index] = event, []
            case ToolCallArguments():
                arguments[event.index].append(event.text)
            case ToolCallEnd(is_complete=True):
                complete.add(event.index)
    calls = tuple(
        ParsedCall(call.id, call.name, "".join(arguments[i]), call.is_known, i in complete)
        for i, call in begun.items()
    )
    return ParsedAnswer("".join(content), "".join(reasoning), calls)
