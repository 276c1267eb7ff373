"""Functions that a chat offers to the model, and which of them it has to call."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from octavo.server.validation import StrictBody

__all__ = [
    "AllowedTools",
    "AllowedToolsChoice",
    "ChatTool",
    "FunctionDefinition",
    "NamedFunction",
    "NamedToolChoice",
]

FUNCTION_NAME = r"^[a-zA-Z0-9_.:/-]{1,128}$"


class FunctionDefinition(StrictBody):
    """A function and the JSON schema of its arguments."""

    name: str = Field(pattern=FUNCTION_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = Field(
        None, description="Without effect: wherever a call is enforced, its schema is."
    )


class ChatTool(StrictBody):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: FunctionDefinition
    cache_control: Any = Field(None, description="Without effect.")


class NamedFunction(StrictBody):
    """The name of one of the functions."""

    name: str


class NamedToolChoice(StrictBody):
    """The answer has to call this function."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(StrictBody):
    """A choice among some of the tools."""

    mode: Literal["auto", "required"]
    tools: list[NamedToolChoice] = Field(min_length=1)


class AllowedToolsChoice(StrictBody):
    """The answer may, or has to, call one of these functions; the others are shown all the same."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools
