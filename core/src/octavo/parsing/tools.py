"""The functions that a request declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octavo.errors import UsageError

__all__ = ["ToolDefinition", "tool_definitions"]

_NO_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}

_MAX_REFERENCES = 8  # one behind the other


@dataclass(frozen=True)
class ToolDefinition:
    """A function: its name, and the JSON schema of its arguments."""

    name: str
    parameters: Mapping[str, Any]

    @property
    def properties(self) -> Mapping[str, Any]:
        """Schemas of the single arguments, as far as they are given by name.

        A reference is replaced by what it refers to, so that each schema tells its types.
        """
        properties = self.parameters.get("properties")
        if not isinstance(properties, Mapping):
            return {}
        return {key: _resolved(schema, self.parameters) for key, schema in properties.items()}

    @property
    def required(self) -> frozenset[str]:
        """Names of the arguments that every call must have."""
        required = self.parameters.get("required")
        return frozenset(required) if isinstance(required, list | tuple) else frozenset()


def _resolved(schema: Any, root: Mapping[str, Any], depth: int = 0) -> Any:
    """A schema without references in itself or its alternatives; what it holds further in stays."""
    if not isinstance(schema, Mapping) or depth == _MAX_REFERENCES:
        return schema
    target = _target(schema.get("$ref"), root)
    if target is not None:
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        return _resolved({**target, **siblings}, root, depth + 1)
    alternatives = {
        key: [_resolved(choice, root, depth + 1) for choice in schema[key]]
        for key in ("anyOf", "oneOf")
        if isinstance(schema.get(key), list)
    }
    return {**schema, **alternatives} if alternatives else schema


def _target(reference: Any, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a reference such as "#/$defs/place" refers to; None if it leads nowhere."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    found: Any = root
    for step in reference[2:].split("/"):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def tool_definitions(tools: Sequence[Mapping[str, Any]]) -> tuple[ToolDefinition, ...]:
    """Definitions from OpenAI's ``tools``: functions, by themselves or in the key "function"."""
    return tuple(_definition(tool, index) for index, tool in enumerate(tools))


def _definition(tool: Mapping[str, Any], index: int) -> ToolDefinition:
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name:
        raise UsageError(f"tools[{index}] has no name: expected a function with a name.")
    parameters = function.get("parameters")
    if parameters is None:
        parameters = _NO_PARAMETERS
    if not isinstance(parameters, Mapping):
        raise UsageError(
            f"tools[{index}], {name!r}, has parameters of type {type(parameters).__name__}; "
            "expected a JSON schema, which is an object."
        )
    return ToolDefinition(name, parameters)
