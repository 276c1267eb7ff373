"""Parsers by name, and by what a model's template and tokens tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from octavo.errors import PluginError, UsageError
from octavo.isolation import describe
from octavo.parsing.builtin import BUILTIN_PARSERS
from octavo.parsing.clues import ModelClues
from octavo.parsing.reasoning import ReasoningFormat
from octavo.parsing.tool_format import ToolCallFormat
from octavo.spec import ParserSpec
from octavo.suggest import choices, did_you_mean

__all__ = ["ParserRegistry"]

Kind = Literal["tool_calls", "reasoning"]
F = TypeVar("F", ToolCallFormat, ReasoningFormat)

_KIND_WORDS: dict[str, str] = {"tool_calls": "tool-call parser", "reasoning": "reasoning parser"}


class ParserRegistry:
    """The built-in parsers and those of plugins (``Plugins.parsers``).

    A plugin's parser stands before the built-in ones in detection, and replaces one of its kind and
    name.
    """

    def __init__(self, plugin_specs: Sequence[ParserSpec] = ()) -> None:
        taken = {(spec.kind, spec.name) for spec in plugin_specs}
        kept = (spec for spec in BUILTIN_PARSERS if (spec.kind, spec.name) not in taken)
        self._specs = (*plugin_specs, *kept)

    def specs(self, kind: Kind) -> tuple[ParserSpec, ...]:
        """All parsers of a kind, in the order of detection."""
        return tuple(spec for spec in self._specs if spec.kind == kind)

    def tool_call_format(self, name: str) -> ToolCallFormat:
        """A format of tool calls by name."""
        return _load(self._find("tool_calls", name), ToolCallFormat)

    def reasoning_format(self, name: str) -> ReasoningFormat:
        """A format of reasoning by name."""
        return _load(self._find("reasoning", name), ReasoningFormat)

    def detect_tool_calls(self, clues: ModelClues) -> ToolCallFormat | None:
        """The format of a model's tool calls, or None if it shows no sign of any."""
        spec = self._detect("tool_calls", clues)
        return None if spec is None else _load(spec, ToolCallFormat)

    def detect_reasoning(self, clues: ModelClues) -> ReasoningFormat | None:
        """The format of a model's reasoning, or None if it shows no sign of any."""
        spec = self._detect("reasoning", clues)
        return None if spec is None else _load(spec, ReasoningFormat)

    def _find(self, kind: Kind, name: str) -> ParserSpec:
        known = {spec.name: spec for spec in self.specs(kind)}
        if name not in known:
            raise UsageError(
                f"There is no {_KIND_WORDS[kind]} {name!r}.{did_you_mean(name, known)} "
                f"Choose one of: {choices(sorted(known))}."
            )
        return known[name]

    def _detect(self, kind: Kind, clues: ModelClues) -> ParserSpec | None:
        return next((spec for spec in self.specs(kind) if _does_detect(spec, clues)), None)


def _does_detect(spec: ParserSpec, clues: ModelClues) -> bool:
    try:
        return bool(spec.detect(clues))
    except Exception as error:
        raise PluginError(_fault(spec, f"detect raised {describe(error)}")) from error


def _load(spec: ParserSpec, expected: type[F]) -> F:
    try:
        loaded = spec.load()
    except Exception as error:
        raise PluginError(_fault(spec, f"load raised {describe(error)}")) from error
    if not isinstance(loaded, expected):
        raise PluginError(
            _fault(spec, f"load returned a {type(loaded).__name__}; expected a {expected.__name__}")
        )
    return loaded


def _fault(spec: ParserSpec, what: str) -> str:
    return f"The {_KIND_WORDS[spec.kind]} {spec.name!r} of a plugin cannot be used: {what}."
