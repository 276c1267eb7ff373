"""From StructuredOutputs to a grammar as llguidance reads it: Lark, with JSON schemas inside."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from octavo.errors import UsageError
from octavo.structured.limits import MAX_GBNF_RULES
from octavo.structured.params import StructuredOutputs
from octavo.structured.part_rules import part_rules, regex_of_text
from octavo.structured.parts import AnswerGrammar
from octavo.structured.structural_tag import structural_tag_rules

__all__ = ["lark_grammar"]

# Without it llguidance allows a single token wherever the text is determined, the one that it takes
# for canonical. The model then chooses among all spellings, and no tokenizer's quirks (a space put
# before every text, a normaliser) can lead it to text outside of the grammar.
_OPTIONS = '\n%llguidance {"no_forcing": true}\n'


def lark_grammar(
    llguidance: Any,
    structured: StructuredOutputs | AnswerGrammar,
    special_tokens: Callable[[], Mapping[str, int]],
) -> str:
    """The grammar of the answer's text; ``special_tokens`` are spelled as what they are.

    Raises UsageError for a GBNF grammar that cannot be converted; llguidance has the last word.
    """

    def form_rules(outputs: StructuredOutputs) -> str:
        return _rules(llguidance, outputs, lambda token: token in special_tokens())

    if isinstance(structured, AnswerGrammar):
        return part_rules(structured.part, form_rules, special_tokens()) + _OPTIONS
    return form_rules(structured) + _OPTIONS


def _rules(
    llguidance: Any, structured: StructuredOutputs, is_special: Callable[[str], bool]
) -> str:
    def json_rule(schema: Mapping[str, Any]) -> str:
        return _json_rule(schema, structured)

    match structured.kind:
        case "json":
            return "start: " + json_rule(json.loads(str(structured.json)))
        case "json_object":
            return "start: " + json_rule({"type": "object"})
        case "regex":
            regex = llguidance.regex_to_lark(structured.regex, use_ascii="d")  # \d is 0 to 9
            return f"start: /{regex}/"
        case "choice":
            return f"start: /{'|'.join(map(regex_of_text, structured.choice or ()))}/"
        case "structural_tag":
            tag = json.loads(str(structured.structural_tag))
            return structural_tag_rules(tag, json_rule, is_special)
        case _:
            return _as_lark(llguidance, str(structured.grammar))


def _json_rule(schema: Mapping[str, Any], structured: StructuredOutputs) -> str:
    options: dict[str, Any] = {}
    if structured.disable_any_whitespace:
        options["whitespace_flexible"] = False
    if structured.whitespace_pattern is not None:
        options["whitespace_pattern"] = structured.whitespace_pattern
    if options:
        own = schema.get("x-guidance")
        schema = {**schema, "x-guidance": {**(own if isinstance(own, dict) else {}), **options}}
    return "%json " + json.dumps(schema, ensure_ascii=False)


def _as_lark(llguidance: Any, grammar: str) -> str:
    num_rules = grammar.count("::=")
    if num_rules > MAX_GBNF_RULES:
        raise UsageError(
            f"structured_outputs.grammar has {num_rules} rules of GBNF; at most {MAX_GBNF_RULES} "
            "are converted. Write it in Lark."
        )
    try:
        return str(llguidance.gbnf_to_lark.any_to_lark(grammar))
    except Exception as error:  # what it raises is of no particular type
        raise UsageError(
            "structured_outputs.grammar has no rule named start, so it is not Lark, and it cannot "
            f"be read as GBNF either: {error}"
        ) from error
