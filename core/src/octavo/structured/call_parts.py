"""Calls of functions as parts of an answer, from what a tool-call format says of their form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from octavo.parsing import ArgumentShape, CallShape, ToolGrammar
from octavo.structured.argument_parts import argument_value
from octavo.structured.limits import TIDY_SPACE
from octavo.structured.params import StructuredOutputs
from octavo.structured.parts import (
    AnyText,
    ExactText,
    Formed,
    InOrder,
    OneOf,
    Part,
    Repeated,
    TextUntil,
)

__all__ = ["calls_part", "text_with_calls"]

_MAX_CALLS = 128  # of an answer; what parsers read
_OPEN_KEYS = ("additionalProperties", "patternProperties", "unevaluatedProperties", "$ref")
_COMBINING_KEYS = ("allOf", "anyOf", "oneOf", "if", "not", "propertyNames")


def calls_part(grammar: ToolGrammar, *, is_parallel: bool) -> Part:
    """An answer of calls: one, or with ``is_parallel`` as many as the model likes."""
    begin, end = ExactText(grammar.begin), ExactText(grammar.end)
    return InOrder((begin, _calls(grammar, is_parallel=is_parallel), end))


def text_with_calls(
    grammar: ToolGrammar, triggers: Sequence[str], *, is_parallel: bool, barred: str = ""
) -> Part | None:
    """Any text, in which whatever follows a trigger is a call.

    ``triggers`` are texts that calls begin with and other text does not; None if the format's calls
    begin with none of them. Without ``is_parallel`` the answer ends behind its first call.
    """
    trigger = _common_trigger(grammar, triggers)
    if trigger is None:
        return None
    rest_of_calls = InOrder(
        (_calls_behind(grammar, trigger, is_parallel=is_parallel), ExactText(grammar.end))
    )
    first = InOrder((TextUntil(trigger, barred), rest_of_calls))
    if not is_parallel:
        return OneOf((first, AnyText(barred)))
    further = InOrder((TextUntil(trigger), rest_of_calls))
    behind = InOrder((Repeated(further), AnyText()))
    return OneOf((InOrder((first, behind)), AnyText(barred)))


def _common_trigger(grammar: ToolGrammar, triggers: Sequence[str]) -> str | None:
    begins = [grammar.begin + call.begin for call in grammar.calls]
    for trigger in sorted(triggers, key=len, reverse=True):
        if begins and all(begin.startswith(trigger) for begin in begins):
            return trigger
    return None


def _calls(grammar: ToolGrammar, *, is_parallel: bool) -> Part:
    call = OneOf(tuple(_call(shape, shape.begin) for shape in grammar.calls))
    if grammar.separator is None or not is_parallel:
        return call
    further = InOrder((ExactText(grammar.separator), call))
    return InOrder((call, Repeated(further, _MAX_CALLS - 1)))


def _calls_behind(grammar: ToolGrammar, trigger: str, *, is_parallel: bool) -> Part:
    """The rest of the first call, and further ones that the trigger does not stand before."""
    begins = [(grammar.begin + shape.begin)[len(trigger) :] for shape in grammar.calls]
    first = OneOf(
        tuple(_call(shape, begin) for shape, begin in zip(grammar.calls, begins, strict=True))
    )
    has_frame = bool(grammar.begin)  # or each call has a trigger of its own
    if grammar.separator is None or not (is_parallel and has_frame):
        return first
    further = OneOf(tuple(_call(shape, shape.begin) for shape in grammar.calls))
    return InOrder(
        (first, Repeated(InOrder((ExactText(grammar.separator), further)), _MAX_CALLS - 1))
    )


def _call(shape: CallShape, begin: str) -> Part:
    arguments = (
        Formed(json_form(_arguments_schema(shape.schema)))
        if shape.arguments is None
        else _arguments(shape, shape.arguments)
    )
    return InOrder((ExactText(begin), arguments, ExactText(shape.end)))


def json_form(schema: Mapping[str, Any]) -> StructuredOutputs:
    """JSON by a schema, with a bounded amount of white space."""
    return StructuredOutputs(json=schema, whitespace_pattern=TIDY_SPACE)


def _arguments_schema(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments are an object, and have no other members than those that are declared."""
    closed = dict(schema)
    if "type" not in closed or isinstance(closed["type"], list):
        closed["type"] = "object"
    if "properties" in closed and not any(key in closed for key in _OPEN_KEYS + _COMBINING_KEYS):
        closed["additionalProperties"] = False
    return closed


def _arguments(shape: CallShape, arguments: Sequence[ArgumentShape]) -> Part:
    written = [_argument(shape, argument) for argument in arguments]
    if not shape.argument_separator:
        return InOrder(
            tuple(
                part if argument.is_required else Repeated(part, 1)
                for part, argument in zip(written, arguments, strict=True)
            )
        )
    return _separated(written, arguments, ExactText(shape.argument_separator))


def _separated(
    written: Sequence[Part], arguments: Sequence[ArgumentShape], separator: Part
) -> Part:
    """Whichever argument is the first has no separator before it."""
    options: list[Part] = []
    for first, argument in enumerate(arguments):
        rest = [
            part if following.is_required else Repeated(part, 1)
            for part, following in (
                (InOrder((separator, written[i])), arguments[i])
                for i in range(first + 1, len(arguments))
            )
        ]
        options.append(InOrder((written[first], *rest)))
        if argument.is_required:
            return OneOf(tuple(options))
    return OneOf((*options, ExactText("")))


def _argument(shape: CallShape, argument: ArgumentShape) -> Part:
    schema = argument.schema
    definitions = {
        key: shape.schema[key] for key in ("$defs", "definitions") if key in shape.schema
    }
    if isinstance(schema, Mapping):
        schema = {**definitions, **schema}
    return InOrder((ExactText(argument.begin), argument_value(argument, schema)))
