"""From Anthropic's messages to those that chat templates read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from octavo.server.errors import ApiError
from octavo.server.protocol.message_blocks import (
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)

if TYPE_CHECKING:
    from octavo.server.protocol.message_blocks import InputMessage
    from octavo.server.protocol.messages import CountTokensRequest

__all__ = ["chat_messages"]

_WHERE = {
    "thinking": "assistant",
    "tool_use": "assistant",
    "tool_result": "user",
}


def chat_messages(body: CountTokensRequest) -> list[dict[str, Any]]:
    """Messages in the form of chat completions; raises ApiError for blocks out of place."""
    messages: list[dict[str, Any]] = []
    if body.system:
        messages.append({"role": "system", "content": _content(body.system)})
    call_ids: set[str] = set()
    for index, message in enumerate(body.messages):
        _check_places(message, f"messages[{index}]")
        if message.role == "assistant":
            messages.append(_assistant(message, call_ids))
        else:
            messages += _others(message, call_ids, f"messages[{index}]")
    return messages


def _check_places(message: InputMessage, where: str) -> None:
    for index, block in enumerate(message.content):
        if isinstance(block, str):  # a character: the content is text
            return
        role = _WHERE.get(block.type, message.role)
        if role != message.role:
            raise ApiError(
                f"A {block.type} block belongs into a message of the role {role!r}, not "
                f"{message.role!r}.",
                param=f"{where}.content[{index}]",
            )


def _assistant(message: InputMessage, call_ids: set[str]) -> dict[str, Any]:
    if isinstance(message.content, str):
        return {"role": "assistant", "content": message.content}
    thoughts = [block.thinking for block in message.content if isinstance(block, ThinkingBlock)]
    texts = [block.text for block in message.content if isinstance(block, TextBlock)]
    calls = [block for block in message.content if isinstance(block, ToolUseBlock)]
    call_ids.update(call.id for call in calls)
    plain: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts else None}
    if thoughts:
        plain["reasoning_content"] = "".join(thoughts)
    if calls:
        plain["tool_calls"] = [_call(call) for call in calls]
    elif plain["content"] is None:
        plain["content"] = ""
    return plain


def _call(call: ToolUseBlock) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.input},
    }


def _others(message: InputMessage, call_ids: set[str], where: str) -> list[dict[str, Any]]:
    """A user's message, in which results of calls are messages of their own, in their order."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    messages: list[dict[str, Any]] = []
    texts: list[Any] = []
    for index, block in enumerate(message.content):
        if isinstance(block, TextBlock):
            texts.append(block)
        elif isinstance(block, ToolResultBlock):
            if texts:
                messages.append({"role": message.role, "content": _content(texts)})
                texts = []
            messages.append(_result(block, call_ids, f"{where}.content[{index}]"))
    if texts or not messages:
        messages.append({"role": message.role, "content": _content(texts)})
    return messages


def _result(block: ToolResultBlock, call_ids: set[str], where: str) -> dict[str, Any]:
    if block.tool_use_id not in call_ids:
        raise ApiError(
            f"No tool_use block with the id {block.tool_use_id!r:.100} comes before this "
            "tool_result. Each result needs its call in a message before.",
            param=f"{where}.tool_use_id",
        )
    content = _content(block.content or "")
    if block.is_error:  # chat templates have no other place for it
        content = f"Error: {content}" if isinstance(content, str) else [_ERROR_PART, *content]
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}


_ERROR_PART = {"type": "text", "text": "Error:"}


def _content(content: str | list[Any]) -> str | list[dict[str, str]]:
    """Text, or parts where there are several: how they are joined is the template's matter."""
    if isinstance(content, str):
        return content
    if len(content) < 2:
        return "".join(block.text for block in content)
    return [{"type": "text", "text": block.text} for block in content]
