"""Chat messages, checked and brought into the plain form that templates read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from octavo.errors import UsageError
from octavo.tokenizer.content_parts import reads_content_parts

__all__ = ["plain_data", "plain_messages"]

_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")


def plain_messages(messages: Sequence[Mapping[str, Any]], source: str) -> list[dict[str, Any]]:
    """Copies of the messages that a template may be given, which cannot reach the caller's.

    Content in parts becomes one text unless the template reads parts. Reasoning is found under each
    of its usual names, as transformers has it.
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise UsageError(
            'Chat messages are a list of {"role": …, "content": …} objects, '
            f"got {type(messages).__name__}."
        )
    return [_plain_message(index, message, source) for index, message in enumerate(messages)]


def _plain_message(index: int, message: Any, source: str) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise UsageError(
            f'messages[{index}] is {message!r}, expected an object with a "role" such as "user".'
        )
    plain: dict[str, Any] = plain_data(message)
    content = plain.get("content")
    if not isinstance(content, str | list | None):
        raise UsageError(
            f"messages[{index}] has content of the type {type(content).__name__}, expected text or "
            "a list of parts."
        )
    if isinstance(content, list) and not reads_content_parts(source):
        plain["content"] = "\n".join(_part_text(index, part) for part in content)
    given = [plain[key] for key in _REASONING_KEYS if plain.get(key) is not None]
    if given:
        plain = {"thinking": given[0], **plain, "reasoning_content": given[0]}
    return plain


def _part_text(index: int, part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise UsageError(
        f"messages[{index}] has a content part of the type {kind!r}, and the model's chat template "
        'takes text only: {"type": "text", "text": …}.'
    )


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
