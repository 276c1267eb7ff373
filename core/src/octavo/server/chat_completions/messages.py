"""From OpenAI's messages to those that chat templates read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from octavo.server.call_arguments import read_call_arguments
from octavo.server.errors import ApiError
from octavo.server.protocol.chat_messages import (
    CalledFunction,
    ChatMessage,
    ContentPart,
    MessageToolCall,
)

__all__ = ["template_messages"]

_TEXT_TYPES = ("text", "input_text", "output_text", "refusal")
_LEGACY_CALL_ID = "call_of_function"


def template_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Messages as plain objects; arguments of calls are objects, parts are text.

    Raises ApiError for what no text can stand for.
    """
    return [_message(index, message) for index, message in enumerate(messages)]


def _message(index: int, message: ChatMessage) -> dict[str, Any]:
    where = f"messages[{index}]"
    if message.audio is not None:
        _refuse(f"{where}.audio", "audio cannot be used, only text")
    plain: dict[str, Any] = {"role": message.role, "content": _content(where, message)}
    for name in ("name", "tool_call_id"):
        if getattr(message, name) is not None:
            plain[name] = getattr(message, name)
    reasoning = message.reasoning_content or message.reasoning
    if reasoning is not None:
        plain["reasoning_content"] = reasoning
    calls = _calls(where, message)
    if calls:
        plain["tool_calls"] = calls
    if message.role == "function":
        plain |= {"role": "tool", "tool_call_id": message.tool_call_id or _LEGACY_CALL_ID}
    return plain


def _content(where: str, message: ChatMessage) -> Any:
    content = message.content
    if content is None:
        if message.refusal is not None:
            return message.refusal
        if message.role != "assistant":
            _refuse(f"{where}.content", f"a message of the role {message.role!r} needs content")
        return None
    if isinstance(content, str):
        return content
    return [_text_part(f"{where}.content[{i}]", part) for i, part in enumerate(content)]


def _text_part(where: str, part: str | ContentPart) -> dict[str, str]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if part.type not in _TEXT_TYPES:
        _refuse(where, f"the model takes text only, and this part is of the type {part.type!r}")
    text = part.refusal if part.type == "refusal" else part.text
    if text is None:
        key = "refusal" if part.type == "refusal" else "text"
        _refuse(where, f"a part of the type {part.type!r} needs {key!r}")
    return {"type": "text", "text": text}


def _calls(where: str, message: ChatMessage) -> list[dict[str, Any]]:
    calls = list(message.tool_calls or ())
    if message.function_call is not None:
        calls.append(
            MessageToolCall(id=_LEGACY_CALL_ID, function=message.function_call, index=None)
        )
    if calls and message.role != "assistant":
        _refuse(f"{where}.tool_calls", f"a message of the role {message.role!r} makes no calls")
    return [
        {
            **({} if call.id is None else {"id": call.id}),
            "type": "function",
            "function": {
                "name": call.function.name,
                "arguments": _arguments(f"{where}.tool_calls[{i}].function", call.function),
            },
        }
        for i, call in enumerate(calls)
    ]


def _arguments(where: str, function: CalledFunction) -> dict[str, Any]:
    if isinstance(function.arguments, dict):
        return function.arguments
    text = function.arguments or ""
    arguments = read_call_arguments(text)
    if arguments is None:
        _refuse(f"{where}.arguments", f"expected the text of a JSON object, got {text!r:.80}")
    return arguments


def _refuse(where: str, reason: str) -> NoReturn:
    raise ApiError(f"Invalid value for {where!r}: {reason}.", param=where, code="invalid_value")
