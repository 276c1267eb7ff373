"""Structural tags: free text in which whatever follows a trigger has to match a JSON schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from octavo.errors import UsageError

__all__ = ["check_structural_tag", "structural_tag_rules"]

_SHAPE = (
    '{"triggers": [text, …], "structures": [{"begin": text, "schema": schema, "end": text}, …]}'
)


def check_structural_tag(tag: Mapping[str, Any]) -> None:
    """Raise UsageError unless the tag has the shape above, with a trigger for each structure."""
    triggers, structures = tag.get("triggers"), tag.get("structures")
    unknown = [key for key in tag if key not in ("type", "triggers", "structures")]
    if unknown or not (_is_list(triggers, str) and _is_list(structures, dict)):
        raise UsageError(
            f"structured_outputs.structural_tag has the keys {sorted(map(str, tag))}; expected "
            f"{_SHAPE}, with at least one of each."
        )
    for structure in tag["structures"]:
        missing = [
            key
            for key, kind in (("begin", str), ("schema", dict), ("end", str))
            if not isinstance(structure.get(key), kind)
        ]
        if missing or len(structure) != 3:
            raise UsageError(
                f"A structure of structured_outputs.structural_tag has the keys "
                f"{sorted(structure)}; expected begin (text), schema (an object) and end (text)."
            )
        _trigger_of(structure, tag["triggers"])


def structural_tag_rules(
    tag: Mapping[str, Any],
    json_rule: Callable[[Mapping[str, Any]], str],
    is_special: Callable[[str], bool],
) -> str:
    """Lark rules of a checked tag; ``json_rule`` spells a schema as a part of one.

    A trigger that is a special token is one in the grammar, too. Any other is text, and a lazy
    rule: it ends as soon as the trigger is complete, so nothing else can come of it.
    """
    names, rules = [], []
    for number, structure in enumerate(tag["structures"]):
        trigger = _trigger_of(structure, tag["triggers"])
        name, begin = f"tag_{number}", structure["begin"][len(trigger) :]
        body = f"{_quoted(begin)} {json_rule(structure['schema'])} {_quoted(structure['end'])}"
        if is_special(trigger):
            rules.append(f"{name}: TEXT {trigger} {body}")
        else:
            rules.append(f"{name}_start[lazy]: TEXT {_quoted(trigger)}")
            rules.append(f"{name}: {name}_start {body}")
        names.append(name)
    start = f"start: ({' | '.join(names)})* text_to_the_end"
    return "\n".join([start, "text_to_the_end: TEXT", r"TEXT: /(.|\n)*/", *rules])


def _trigger_of(structure: Mapping[str, Any], triggers: list[str]) -> str:
    for trigger in triggers:
        if trigger and structure["begin"].startswith(trigger):
            return trigger
    raise UsageError(
        f"structured_outputs.structural_tag has no trigger for begin={structure['begin']!r}; it "
        f"must start with one of {triggers}."
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, kind) for v in value)
