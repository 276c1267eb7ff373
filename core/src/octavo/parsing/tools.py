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


@dataclass(frozen=True)
class ToolDefinition:
    """A function: its name, and the JSON schema of its arguments."""

    name: str
    parameters: Mapping[str, Any]

    @property
    def properties(self) -> Mapping[str, Any]:
        """Schemas of the single arguments, as far as they are given by name."""
        properties = self.parameters.get("properties")
        return properties if isinstance(properties, Mapping) else {}

    @property
    def required(self) -> frozenset[str]:
        """Names of the arguments that every call must have."""
        required = self.parameters.get("required")
        return frozenset(required) if isinstance(required, list | tuple) else frozenset()


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
