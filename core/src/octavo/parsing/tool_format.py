"""A format of tool calls: where a call may begin, how it is read, how a grammar can force it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from octavo.parsing.cursor import Reader
from octavo.parsing.grammar import ToolGrammar
from octavo.parsing.reading import CallReading
from octavo.parsing.tools import ToolDefinition

__all__ = ["Opener", "ToolCallFormat", "new_call_id"]


@dataclass(frozen=True)
class Opener:
    """A text at which a call may begin; the reader finds it untaken."""

    text: str
    at_line_start: bool = False
    """Only behind nothing but white space in its line, or behind another call."""

    def __post_init__(self) -> None:
        if not self.text or self.text[0].isspace():
            raise ValueError(f"an opener with {self.text=}; expected one that begins with a mark")


def new_call_id() -> str:
    """An id as OpenAI's look."""
    return f"call_{secrets.token_hex(12)}"


@dataclass(frozen=True)
class ToolCallFormat:
    """How a family of models writes calls."""

    name: str
    openers: tuple[Opener, ...]
    read: Callable[[CallReading], Reader[None]]
    """Reads one or more calls from an opener on; raises MalformedCall if there is none."""
    grammar: Callable[[Sequence[ToolDefinition]], ToolGrammar]
    """What a grammar engine needs to force a call of one of the functions."""
    special_tokens: tuple[str, ...] = ()
    """Tokens that detokenization must keep, or the calls cannot be seen."""
    new_id: Callable[[], str] = new_call_id
