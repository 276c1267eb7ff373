"""The form of an answer put together from parts: reasoning, text, calls, JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from octavo.structured.params import StructuredOutputs

__all__ = [
    "AnswerGrammar",
    "AnyText",
    "ExactText",
    "Formed",
    "InOrder",
    "OneOf",
    "Part",
    "Repeated",
    "Space",
    "TextUntil",
    "TextValue",
]


@dataclass(frozen=True)
class ExactText:
    """This text; special tokens within it are those tokens, and nothing that looks like them."""

    text: str


@dataclass(frozen=True)
class Space:
    """White space, or none; at most ``most`` characters."""

    most: int = 4


@dataclass(frozen=True)
class AnyText:
    """Any text to the end that does not begin with ``barred``, with space before it or without."""

    barred: str = ""


@dataclass(frozen=True)
class TextUntil:
    """Any text up to and with the first ``mark``; it does not begin with ``barred``."""

    mark: str
    barred: str = ""


@dataclass(frozen=True)
class TextValue:
    """Text of a number of characters and of a pattern (a regex that it contains), then ``end``.

    ``closer`` is in the text nowhere.
    """

    end: str
    closer: str
    least: int = 0
    most: int | None = None
    pattern: str | None = None


@dataclass(frozen=True)
class Formed:
    """Whatever a StructuredOutputs describes."""

    outputs: StructuredOutputs


@dataclass(frozen=True)
class InOrder:
    """One part behind the other."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class OneOf:
    """Any one of the parts."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Repeated:
    """The part several times, or not at all."""

    part: Part
    most: int | None = None


Part: TypeAlias = (
    ExactText | Space | AnyText | TextUntil | TextValue | Formed | InOrder | OneOf | Repeated
)


@dataclass(frozen=True)
class AnswerGrammar:
    """A whole answer; given to a request as its ``structured_outputs``."""

    part: Part

    @property
    def kind(self) -> str:
        """Beside the kinds of StructuredOutputs."""
        return "answer"

    @property
    def forms(self) -> Iterator[StructuredOutputs]:
        """What its parts are to look like, each by itself."""
        return _forms(self.part)


def _forms(part: Part) -> Iterator[StructuredOutputs]:
    match part:
        case Formed():
            yield part.outputs
        case Repeated():
            yield from _forms(part.part)
        case InOrder() | OneOf():
            for member in part.parts:
                yield from _forms(member)
