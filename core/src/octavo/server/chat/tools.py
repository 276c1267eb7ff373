"""The tools of a turn: which may be called, in which format, and how a model is told of them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from octavo.parsing import ToolGrammar, tool_definitions
from octavo.parsing.json_format import JSON
from octavo.server.errors import ApiError

if TYPE_CHECKING:
    from octavo.parsing import ToolCallFormat
    from octavo.server.chat.task import ChatTask
    from octavo.server.served_model import ServedModel

__all__ = ["callable_tools", "shows_tools", "told_of_tools", "tool_format"]

_TOOLS = re.compile(r"\btools\b")
_log = logging.getLogger(__name__)
_warned: set[str] = set()


def tool_format(model: ServedModel, task: ChatTask) -> ToolCallFormat | None:
    """The format of the calls that the answer may hold; None: it may hold none.

    A model without a format of its own is asked for plain JSON. Raises ApiError for a model whose
    calls are not read: its answers would hold them as text.
    """
    if not task.tools or task.tool_choice.kind == "none":
        return None
    if not model.takes_tools:
        raise ApiError(
            f"Tools cannot be used: the model {model.name!r} is served with "
            "--tool-call-parser none, so that its calls are not read. Leave tools out, set "
            "tool_choice to none, or start the server with another parser.",
            param="tools",
        )
    return model.tool_calls or JSON


def callable_tools(task: ChatTask) -> Sequence[Mapping[str, Any]]:
    """The tools that may be called."""
    choice = task.tool_choice
    names = (choice.name,) if choice.kind == "named" else choice.allowed
    if names is None:
        return task.tools
    return [tool for tool in task.tools if tool.get("function", tool)["name"] in names]


def shows_tools(template: str) -> bool:
    """Whether a chat template does anything with tools."""
    return _TOOLS.search(template) is not None


def told_of_tools(
    messages: Sequence[Mapping[str, Any]], task: ChatTask, called: ToolCallFormat, model_name: str
) -> list[Mapping[str, Any]]:
    """The messages with the tools in the system message, for templates that know no tools."""
    if model_name not in _warned:
        _warned.add(model_name)
        _log.warning(
            "The chat template of %s knows no tools: they are described in the system message.",
            model_name,
        )
    text = _instruction(called.grammar(tool_definitions(task.tools)), task.tools)
    first = messages[0] if messages else {}
    if first.get("role") != "system":
        return [{"role": "system", "content": text}, *messages]
    content = first.get("content") or ""
    if isinstance(content, str):
        content = f"{content}\n\n{text}" if content else text
    else:
        content = [*content, {"type": "text", "text": text}]
    return [{**first, "content": content}, *messages[1:]]


def _instruction(grammar: ToolGrammar, tools: Sequence[Mapping[str, Any]]) -> str:
    described = "\n".join(json.dumps(tool.get("function", tool)) for tool in tools)
    call = grammar.calls[0]
    example = f"{grammar.begin}{call.begin}{{...}}{call.end}{grammar.end}"
    return (
        "You can call these functions, each given with the JSON schema of its parameters:\n"
        f"{described}\n"
        "To call one, answer with nothing but its name and its arguments in this form:\n"
        f"{example}"
    )
