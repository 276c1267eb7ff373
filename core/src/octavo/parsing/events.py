"""What a parser reports of an answer: text, reasoning, and tool calls, piece by piece."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

__all__ = [
    "ContentDelta",
    "Event",
    "ReasoningDelta",
    "ToolCallArguments",
    "ToolCallBegin",
    "ToolCallEnd",
    "merge_events",
]


@dataclass(frozen=True)
class ContentDelta:
    """More of the text that is meant for the reader."""

    text: str


@dataclass(frozen=True)
class ReasoningDelta:
    """More of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True)
class ToolCallBegin:
    """A call begins; ``index`` counts the calls of an answer from 0."""

    index: int
    id: str
    name: str
    is_known: bool  # whether a function of that name was declared


@dataclass(frozen=True)
class ToolCallArguments:
    """More of a call's arguments; the pieces of one call, joined, are the text of a JSON object."""

    index: int
    text: str


@dataclass(frozen=True)
class ToolCallEnd:
    """A call has ended.

    Only where arguments are streamed can it be incomplete: the answer broke off, or went on with
    something else than JSON, when pieces had been handed out already.
    """

    index: int
    is_complete: bool = True


Event: TypeAlias = ContentDelta | ReasoningDelta | ToolCallBegin | ToolCallArguments | ToolCallEnd


def merge_events(events: Iterable[Event]) -> list[Event]:
    """The same events with neighbouring pieces of one text joined: however an answer was cut."""
    groups: list[tuple[Event, list[str]]] = []
    for event in events:
        if isinstance(event, ToolCallBegin | ToolCallEnd):
            groups.append((event, []))
        elif groups and _continues(groups[-1][0], event):
            groups[-1][1].append(event.text)
        else:
            groups.append((event, [event.text]))
    return [_joined(event, texts) for event, texts in groups]


def _continues(first: Event, event: Event) -> bool:
    is_same_call = getattr(first, "index", None) == getattr(event, "index", None)
    return type(first) is type(event) and is_same_call


def _joined(event: Event, texts: list[str]) -> Event:
    if isinstance(event, ToolCallBegin | ToolCallEnd):
        return event
    return replace(event, text="".join(texts))
