"""Items of a conversation in one form, whoever made them: plain objects with ids, as answers have.

They are what is stored, what /v1/responses/{id}/input_items shows, and what messages are made of.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from octavo.server.errors import ApiError
from octavo.server.protocol.response_items import (
    FunctionCall,
    FunctionCallOutput,
    InputMessage,
    ItemReference,
    ReasoningItem,
)
from octavo.server.responses.ids import new_id

if TYPE_CHECKING:
    from octavo.server.protocol.responses import ResponseRequest

__all__ = ["Item", "input_items", "open_reasoning", "sealed_reasoning"]

Item: TypeAlias = dict[str, Any]

_SEAL = "octavo:"


def input_items(body: ResponseRequest, stored_item: Callable[[str], Item | None]) -> list[Item]:
    """The items of a request's input; ``stored_item`` finds those that it only refers to."""
    if isinstance(body.input, str):
        return [_message(new_id("msg"), "user", body.input)]
    return [_item(index, item, stored_item) for index, item in enumerate(body.input)]


def _item(index: int, item: Any, stored_item: Callable[[str], Item | None]) -> Item:
    match item:
        case InputMessage():
            return _message(item.id or new_id("msg"), item.role, item.content)
        case FunctionCall():
            return {
                "id": item.id or new_id("fc"),
                "type": "function_call",
                "status": "completed",
                "call_id": item.call_id,
                "name": item.name,
                "arguments": item.arguments,
            }
        case FunctionCallOutput():
            return {
                "id": item.id or new_id("fco"),
                "type": "function_call_output",
                "status": "completed",
                "call_id": item.call_id,
                "output": item.output
                if isinstance(item.output, str)
                else _parts(item.output, "tool"),
            }
        case ReasoningItem():
            return _reasoning(index, item)
    assert isinstance(item, ItemReference)  # noqa: S101 - there are no others
    found = stored_item(item.id)
    if found is None:
        raise ApiError(
            f"input[{index}] refers to the item {item.id!r}, which is not stored here (any more). "
            "Send the item itself.",
            status=404,
            param=f"input[{index}].id",
        )
    return found


def _message(item_id: str, role: str, content: str | Sequence[Any]) -> Item:
    parts = [_text_part(content, role)] if isinstance(content, str) else _parts(content, role)
    return {
        "id": item_id,
        "type": "message",
        "role": role,
        "status": "completed",
        "content": parts,
    }


def _parts(parts: Sequence[Any], role: str) -> list[dict[str, Any]]:
    return [
        {"type": "refusal", "refusal": part.refusal}
        if part.type == "refusal"
        else _text_part(part.text, role)
        for part in parts
    ]


def _text_part(text: str, role: str) -> dict[str, Any]:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": []}
    return {"type": "input_text", "text": text}


def _reasoning(index: int, item: ReasoningItem) -> Item:
    texts = [part.text for part in item.content or item.summary]
    if not texts and item.encrypted_content is not None:
        texts = [open_reasoning(item.encrypted_content, f"input[{index}].encrypted_content")]
    return {
        "id": item.id or new_id("rs"),
        "type": "reasoning",
        "status": "completed",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": text} for text in texts],
    }


def sealed_reasoning(text: str) -> str:
    """Reasoning for clients that hand back only ``encrypted_content``; it is not secret."""
    return _SEAL + base64.b64encode(text.encode("utf-8", "replace")).decode()


def open_reasoning(sealed: str, where: str) -> str:
    """What ``sealed_reasoning`` was given; raises ApiError for what others have encrypted."""
    if sealed.startswith(_SEAL):
        try:
            return base64.b64decode(sealed.removeprefix(_SEAL), validate=True).decode()
        except (binascii.Error, ValueError):
            pass
    raise ApiError(
        f"Invalid value for {where!r}: this server has not written it, so that it cannot be read. "
        "Leave the item out, or send its content.",
        param=where,
        code="invalid_value",
    )
