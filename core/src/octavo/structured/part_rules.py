"""From the parts of an answer to rules of Lark as llguidance reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from octavo.structured.params import StructuredOutputs
from octavo.structured.parts import (
    AnyText,
    ExactText,
    Formed,
    InOrder,
    OneOf,
    Part,
    Repeated,
    Space,
    TextUntil,
    TextValue,
)

__all__ = ["part_rules", "regex_of_text"]

_ANY = r"/(.|\n)*/"
_NOTHING = '""'
_BARE_SLASH = re.compile(r"(?<!\\)/")


def part_rules(
    part: Part, form_rules: Callable[[StructuredOutputs], str], special_tokens: Mapping[str, int]
) -> str:
    """A grammar for the part.

    ``form_rules`` gives the grammar of a form, ``special_tokens`` their ids by their names.
    """
    writer = _Writer(form_rules, special_tokens)
    start = writer.expression(part)
    return "\n".join([f"start: {start}", *writer.rules])


class _Writer:
    """Makes an expression of each part; what has no expression becomes a rule of its own.

    Text up to a mark is a lazy rule: it ends as soon as the mark is complete, and then whatever
    else the text could have been is out of the question.
    """

    def __init__(
        self, form_rules: Callable[[StructuredOutputs], str], special_tokens: Mapping[str, int]
    ) -> None:
        self.rules: list[str] = []
        self._form_rules = form_rules
        self._special_tokens = special_tokens
        names = sorted(special_tokens, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        self._known: dict[Part, str] = {}

    def expression(self, part: Part) -> str:
        """An expression that may stand in any place of a rule."""
        if part not in self._known:
            self._known[part] = self._expression(part)
        return self._known[part]

    def _expression(self, part: Part) -> str:  # noqa: PLR0911 - one for each kind of part
        match part:
            case ExactText():
                return self._exact(part.text)
            case Space():
                return self._rule("space", rf"/[ \t\r\n]{{0,{part.most}}}/")
            case AnyText():
                return self._rule("text", self._terminal(_ANY, self._barring(part.barred)))
            case TextUntil():
                return self._until(part)
            case TextValue():
                return self._value(part)
            case Formed():
                return self._formed(part.outputs)
            case InOrder():
                return self._joined(map(self.expression, part.parts))
            case OneOf():
                return self._one_of([self.expression(member) for member in part.parts])
            case Repeated():
                number = "*" if part.most is None else f"{{0,{part.most}}}"
                return f"({self.expression(part.part)}){number}"

    def _exact(self, text: str) -> str:
        pieces, start = [], 0
        for found in self._special.finditer(text):
            pieces.append(_quoted(text[start : found.start()]))
            pieces.append(f"<[{self._special_tokens[found[0]]}]>")
            start = found.end()
        pieces.append(_quoted(text[start:]))
        return self._joined(piece for piece in pieces if piece != _NOTHING)

    def _until(self, part: TextUntil) -> str:
        barring = self._barring(part.barred)
        token_id = self._special_tokens.get(part.mark)
        if token_id is not None:
            return f"{self._rule('text', self._terminal(_ANY, barring))} <[{token_id}]>"
        text = self._terminal(f"{_ANY} {_quoted(part.mark)}", barring)
        return self._rule("until", text, "[lazy]")

    def _value(self, part: TextValue) -> str:
        most = "" if part.most is None else part.most
        parts = [rf"/(.|\n){{{part.least},{most}}}/", f"~({_containing(part.closer)})"]
        if part.pattern is not None:
            parts.append("/" + _BARE_SLASH.sub(r"\/", part.pattern) + "/")
        value = self._terminal(" & ".join(parts))
        return self._rule("value", f"{value} {_quoted(part.end)}", "[lazy]")

    def _formed(self, outputs: StructuredOutputs) -> str:
        rules = self._form_rules(outputs)
        head, _, body = rules.partition("start: ")
        if not head and "\n" not in body:
            return self._rule("form", body)
        return self._rule("form", f"%lark {{\n{rules}\n}}")

    def _one_of(self, expressions: Sequence[str]) -> str:
        if len(expressions) == 1:
            return expressions[0]
        return self._rule("choice", " | ".join(expressions))

    def _barring(self, barred: str) -> str:
        """What is taken away from a text so that it does not begin like this."""
        if not barred or barred in self._special_tokens:
            return ""  # no text holds a special token
        return rf" & ~(/\s*{regex_of_text(barred)}(.|\n)*/)"

    def _terminal(self, expression: str, more: str = "") -> str:
        name = f"TEXT_{len(self.rules)}"
        self.rules.append(f"{name}: ({expression}){more}" if more else f"{name}: {expression}")
        return name

    def _rule(self, what: str, expression: str, option: str = "") -> str:
        name = f"{what}_{len(self.rules)}"
        self.rules.append(f"{name}{option}: {expression}")
        return name

    @staticmethod
    def _joined(expressions: Iterable[str]) -> str:
        return " ".join(expressions) or _NOTHING


def regex_of_text(text: str) -> str:
    """A regex that matches exactly this text, without a character that Lark could mistake."""
    return "".join(
        character if character.isascii() and character.isalnum() else f"\\x{{{ord(character):x}}}"
        for character in text
    )


def _containing(text: str) -> str:
    return rf"/(.|\n)*{regex_of_text(text)}(.|\n)*/"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
