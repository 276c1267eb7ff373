"""What a model thinks before it answers, told from the answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from octavo.parsing.cursor import Cursor, Reader
from octavo.parsing.events import ContentDelta, ReasoningDelta
from octavo.parsing.json_reader import read_space
from octavo.parsing.machine import Machine

__all__ = ["DEEPSEEK_R1", "MISTRAL_THINK", "THINK", "ReasoningFormat", "ReasoningParser"]

_ANYTHING = re.compile(r"[\s\S]*")


@dataclass(frozen=True)
class ReasoningFormat:
    """The tags around the reasoning, which comes first in an answer, if at all."""

    name: str
    begin: str
    end: str
    is_open_by_default: bool = False
    """Whether an answer begins inside the reasoning, where the prompt is not known."""
    special_tokens: tuple[str, ...] = ()
    """Tokens that detokenization must keep, or the tags cannot be seen."""

    def __post_init__(self) -> None:
        if not self.begin.strip() or not self.end.strip():
            raise ValueError(f"{self.begin=} and {self.end=}; expected two tags")

    def is_open_after(self, prompt: str | None) -> bool:
        """Whether the answer to a prompt begins inside the reasoning."""
        return self.is_open_by_default if prompt is None else prompt.rstrip().endswith(self.begin)


THINK = ReasoningFormat("think", "<think>", "</think>")
DEEPSEEK_R1 = ReasoningFormat("deepseek_r1", "<think>", "</think>", is_open_by_default=True)
MISTRAL_THINK = ReasoningFormat(
    "mistral_think", "[THINK]", "[/THINK]", special_tokens=("[THINK]", "[/THINK]")
)


class ReasoningParser(Machine):
    """Splits an answer into reasoning and content.

    `prompt` is the rendered prompt, whose end tells whether the template has opened the tag. White
    space beside the tags is dropped. An answer that ends inside the reasoning is reasoning alone;
    a closing tag without an opening one is content.
    """

    def __init__(self, reasoning_format: ReasoningFormat, prompt: str | None = None) -> None:
        self._format = reasoning_format
        self._held: list[str] = []  # white space at the end of the reasoning so far
        self._is_reasoning = reasoning_format.is_open_after(prompt)
        super().__init__(Cursor())

    @property
    def is_reasoning(self) -> bool:
        """Whether what has been fed ends inside the reasoning."""
        return self._is_reasoning

    def _run(self) -> Reader[None]:
        space: list[str] = []
        yield from read_space(self._cursor, space.append)
        # Where the prompt has opened the tag, some models write it again.
        self._is_reasoning |= yield from self._cursor.literal(self._format.begin)
        if self._is_reasoning:
            yield from read_space(self._cursor)
            has_ended = yield from self._cursor.until(self._format.end, self._put_reasoning)
            self._is_reasoning = not has_ended
            yield from read_space(self._cursor)
        elif space:
            self._put_content("".join(space))
        yield from self._cursor.run(_ANYTHING, self._put_content)

    def _put_reasoning(self, text: str) -> None:
        kept = text.rstrip()
        if kept:
            self._events.append(ReasoningDelta("".join([*self._held, kept])))
            self._held.clear()
        self._held.append(text[len(kept) :])

    def _put_content(self, text: str) -> None:
        self._events.append(ContentDelta(text))
