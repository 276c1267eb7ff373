"""Chat messages, checked and brought into the plain form that templates read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from octavo.errors import UsageError

__all__ = ["join_parts", "plain_data", "plain_messages", "shows_parts"]

_PART_WRITTEN_OUT = ("'type': 'text'", '"type": "text"', '"type":"text"')
_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Checked copies of the messages, through which no template can reach the caller's.

    Reasoning is found under each of its usual names, as transformers has it.
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise UsageError(
            'Chat messages are a list of {"role": …, "content": …} objects, '
            f"got {type(messages).__name__}."
        )
    return [_plain_message(index, message) for index, message in enumerate(messages)]


def _plain_message(index: int, message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise UsageError(
            f'messages[{index}] is {message!r}, expected an object with a "role" such as "user".'
        )
    plain: dict[str, Any] = plain_data(message)
    content = plain.get("content")
    if isinstance(content, list):
        plain["content"] = [_text_part(index, part) for part in content]
    elif content is not None and not isinstance(content, str):
        raise UsageError(
            f"messages[{index}] has content of the type {type(content).__name__}, expected text or "
            "a list of parts."
        )
    given = [plain[key] for key in _REASONING_KEYS if plain.get(key) is not None]
    if given:
        plain = {"thinking": given[0], **plain, "reasoning_content": given[0]}
    return plain


def _text_part(index: int, part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise UsageError(
        f"messages[{index}] has a content part of the type {kind!r}; only text can be used: "
        '{"type": "text", "text": …}.'
    )


def join_parts(chat: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages with content in parts made one text, a part to a line."""
    return [
        {**message, "content": "\n".join(_part_texts(message))}
        if isinstance(message.get("content"), list)
        else dict(message)
        for message in chat
    ]


def shows_parts(prompt: str, chat: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a prompt has the text of all parts, and not the list as a program writes it."""
    texts = [text for message in chat for text in _part_texts(message)]
    return all(text.strip() in prompt for text in texts) and not any(
        written in prompt for written in _PART_WRITTEN_OUT
    )


def _part_texts(message: Mapping[str, Any]) -> list[str]:
    content = message.get("content")
    return [part["text"] for part in content] if isinstance(content, list) else []


def plain_data(value: Any) -> Any:
    """A copy in JSON's own types; templates must not reach methods of anything richer."""
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {plain_data(key): plain_data(member) for key, member in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [plain_data(member) for member in value]
    if hasattr(value, "model_dump"):  # pydantic
        return plain_data(value.model_dump())
    raise UsageError(
        f"A chat template takes text, numbers, lists and objects, got {type(value).__name__}."
    )
