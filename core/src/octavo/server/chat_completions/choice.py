"""The tools of a request and which of them are to be called, in the newer form and the older."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from octavo.server.chat import ToolChoice
from octavo.server.errors import ApiError
from octavo.server.protocol.chat_tools import AllowedToolsChoice, NamedFunction, NamedToolChoice
from octavo.suggest import choices, did_you_mean

if TYPE_CHECKING:
    from octavo.server.protocol.chat import ChatRequest

__all__ = ["tool_choice", "tools_of"]


def tools_of(body: ChatRequest) -> list[dict[str, Any]]:
    """The tools as templates read them."""
    if body.tools and body.functions:
        raise ApiError(
            "functions is the older form of tools: give only one of them.", param="functions"
        )
    functions = [tool.function for tool in body.tools or ()] or list(body.functions or ())
    param = "functions" if body.functions else "tools"
    _check_different([function.name for function in functions], param)
    return [
        {
            "type": "function",
            "function": function.model_dump(exclude_none=True, exclude={"strict"}),
        }
        for function in functions
    ]


def tool_choice(body: ChatRequest) -> ToolChoice:
    """Which function the answer has to call."""
    if body.tool_choice is not None and body.function_call is not None:
        raise ApiError(
            "function_call is the older form of tool_choice: give only one of them.",
            param="function_call",
        )
    if body.function_call is not None:
        known = [function.name for function in body.functions or ()]
        return _choice(body.function_call, known, "function_call", "functions")
    known = [tool.function.name for tool in body.tools or ()]
    return _choice(body.tool_choice or "auto", known, "tool_choice", "tools")


def _choice(
    wanted: str | NamedToolChoice | NamedFunction | AllowedToolsChoice,
    known: Sequence[str],
    param: str,
    tools: str,
) -> ToolChoice:
    if not known and wanted not in ("none", "auto"):
        raise ApiError(
            f"{param!r} demands a call, and there are no {tools!r} that could be called.",
            param=param,
        )
    match wanted:
        case "none" | "auto" | "required":
            return ToolChoice(wanted)
        case NamedToolChoice():
            return ToolChoice("named", _checked(wanted.function.name, known, param, tools))
        case NamedFunction():
            return ToolChoice("named", _checked(wanted.name, known, param, tools))
        case AllowedToolsChoice():
            allowed = wanted.allowed_tools
            names = tuple(
                _checked(tool.function.name, known, param, tools) for tool in allowed.tools
            )
            return ToolChoice(allowed.mode, allowed=names)
    raise AssertionError(wanted)


def _checked(name: str, known: Sequence[str], param: str, tools: str) -> str:
    if name in known:
        return name
    raise ApiError(
        f"{param!r} names the function {name!r}, which is not among the {tools!r}."
        f"{did_you_mean(name, known)} There are: {choices(known)}.",
        param=param,
    )


def _check_different(names: Collection[str], param: str) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ApiError(f"{param!r} has two functions named {twice[0]!r}.", param=param)
