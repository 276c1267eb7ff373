"""StructuredOutputs: what an answer must look like. Names are vLLM's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from octavo.errors import UsageError
from octavo.sampling_checks import checked_bool, checked_strings
from octavo.structured.limits import MAX_CHOICES, MAX_REGEX_LENGTH, MAX_TEXT_BYTES
from octavo.structured.structural_tag import check_structural_tag
from octavo.suggest import choices, did_you_mean

if TYPE_CHECKING:
    from octavo.structured.parts import AnswerGrammar

__all__ = ["KINDS", "StructuredOutputs", "checked_structured_outputs"]

KINDS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
_WITH_JSON = ("json", "json_object", "structural_tag")


@dataclass(frozen=True, kw_only=True)
class StructuredOutputs:
    """Exactly one of json, regex, choice, grammar, json_object and structural_tag.

    Checked when made, and never changed afterwards; whether the grammar engine takes it is known
    once an engine has compiled it. ``json`` and ``structural_tag`` are JSON text afterwards.
    """

    json: Mapping[str, Any] | str | None = None
    """A JSON schema, as a mapping or as text."""
    regex: str | None = None
    """The whole answer matches it. Rust's syntax: no look-around, no back-references."""
    choice: Sequence[str] | None = None
    """The answer is one of these strings."""
    grammar: str | None = None
    """A context-free grammar: Lark as llguidance takes it, or GBNF as llama.cpp does."""
    json_object: bool | None = None
    """Any JSON object."""
    structural_tag: Mapping[str, Any] | str | None = None
    """Free text in which whatever follows a trigger has a schema:
    ``{"triggers": [text], "structures": [{"begin": text, "schema": schema, "end": text}]}``."""
    disable_any_whitespace: bool = False
    """No whitespace between the tokens of JSON."""
    whitespace_pattern: str | None = None
    """A regex for the whitespace between the tokens of JSON."""

    def __post_init__(self) -> None:
        self._check_kind()
        self._check_whitespace()
        for name in ("json", "structural_tag"):
            self._set(name, _checked_json)
        self._set("choice", _checked_choice)
        self._set("regex", _checked_text, limit=MAX_REGEX_LENGTH)
        self._set("grammar", _checked_text, limit=MAX_TEXT_BYTES)
        if self.structural_tag is not None:
            check_structural_tag(json.loads(str(self.structural_tag)))

    @property
    def kind(self) -> str:
        """The name of the one that is set."""
        return next(name for name in KINDS if getattr(self, name) not in (None, False))

    def _check_kind(self) -> None:
        if self.json_object is not None:
            checked_bool("structured_outputs.json_object", self.json_object)
        given = [name for name in KINDS if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            raise UsageError(
                f"structured_outputs sets {' and '.join(given) or 'nothing'}; expected exactly one "
                f"of {choices(KINDS)}."
            )

    def _check_whitespace(self) -> None:
        checked_bool("structured_outputs.disable_any_whitespace", self.disable_any_whitespace)
        self._set("whitespace_pattern", _checked_text, limit=MAX_REGEX_LENGTH)
        for name in ("disable_any_whitespace", "whitespace_pattern"):
            if getattr(self, name) and self.kind not in _WITH_JSON:
                raise UsageError(
                    f"structured_outputs.{name} is about JSON and means nothing with {self.kind}; "
                    f"leave it out, or use one of {choices(_WITH_JSON)}."
                )
        if self.disable_any_whitespace and self.whitespace_pattern is not None:
            raise UsageError(
                "structured_outputs sets disable_any_whitespace and whitespace_pattern, which "
                "contradict each other; leave one out."
            )

    def _set(self, name: str, check: Any, **limits: Any) -> None:
        value = getattr(self, name)
        if value is not None:
            object.__setattr__(self, name, check(f"structured_outputs.{name}", value, **limits))


def checked_structured_outputs(name: str, value: Any) -> StructuredOutputs | AnswerGrammar | None:
    """A StructuredOutputs, or one made from a mapping with its names; None passes.

    An AnswerGrammar, whose parts have been checked, passes as well.
    """
    from octavo.structured.parts import AnswerGrammar  # which is made of StructuredOutputs

    if value is None or isinstance(value, StructuredOutputs | AnswerGrammar):
        return value
    if not isinstance(value, Mapping):
        raise UsageError(
            f"{name} must be a StructuredOutputs or a mapping with its names, got "
            f"{type(value).__name__}."
        )
    known = [field.name for field in fields(StructuredOutputs)]
    for key in value:
        if key not in known:
            raise UsageError(
                f"{name} has no {key!r}.{did_you_mean(str(key), known)} Known: {choices(known)}."
            )
    return StructuredOutputs(**value)


def _checked_json(name: str, value: Any) -> str:
    """JSON text of an object, within the size limit."""
    try:
        parsed = json.loads(_checked_text(name, value)) if isinstance(value, str) else value
        if not isinstance(parsed, Mapping):
            raise UsageError(
                f"{name} must be a JSON object, as a mapping or as text; got "
                f"{type(parsed).__name__}."
            )
        text = json.dumps(parsed, ensure_ascii=False, allow_nan=False)
    except RecursionError as error:
        raise UsageError(f"{name} is nested too deeply to be read.") from error
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{name} is not JSON: {error}.") from error
    return _checked_text(name, text)


def _checked_choice(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise UsageError(f"{name} must be a list of strings, got the single string {value!r}.")
    strings = checked_strings(name, value)
    if not strings:
        raise UsageError(f"{name} is empty, so that there would be no answer.")
    if len(strings) > MAX_CHOICES:
        raise UsageError(f"{name} has {len(strings)} strings; at most {MAX_CHOICES} are taken.")
    _checked_text(name, "".join(strings))
    return strings


def _checked_text(name: str, value: Any, limit: int = MAX_TEXT_BYTES) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name} must be text, got {value!r:.80} ({type(value).__name__}).")
    if not value:
        raise UsageError(f"{name} is empty.")
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{name} holds a lone surrogate (at character {error.start}), which no text can have."
        ) from error
    if size > limit:
        raise UsageError(
            f"{name} has {size} bytes; at most {limit} are taken, since compiling it holds up all "
            "other requests. Make it smaller."
        )
    return value
