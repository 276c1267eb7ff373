"""From the items of a conversation to the messages that chat templates read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from octavo.server.call_arguments import read_call_arguments
from octavo.server.errors import ApiError
from octavo.server.responses.items import Item

__all__ = ["conversation_messages"]

_ROLES = {"developer": "system"}  # templates know no developer


def conversation_messages(
    instructions: str | None, earlier: Sequence[Item], given: Sequence[Item]
) -> list[dict[str, Any]]:
    """Messages in the form of chat completions; raises ApiError for a call that is not JSON.

    What an assistant thought, said and called in one go is one message, as templates expect.
    """
    conversation = _Conversation()
    if instructions is not None:
        conversation.messages.append({"role": "system", "content": instructions})
    for item in earlier:
        conversation.add(item, "previous_response_id")
    for index, item in enumerate(given):
        conversation.add(item, f"input[{index}]")
    return conversation.messages


class _Conversation:
    """Messages as they grow, item by item."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self._call_ids: set[str] = set()

    def add(self, item: Item, where: str) -> None:
        match item["type"]:
            case "message" if item["role"] == "assistant":
                self._add_said(_text(item["content"]))
            case "message":
                role = _ROLES.get(item["role"], item["role"])
                self.messages.append({"role": role, "content": _content(item["content"])})
            case "reasoning":
                self._add_thought("".join(part["text"] for part in item["content"]))
            case "function_call":
                self._add_call(item, where)
            case _:
                self._add_output(item, where)

    def _assistant(self, taken: tuple[str, ...]) -> dict[str, Any]:
        """The assistant's message at the end, or a new one if it has any of ``taken`` already."""
        last = self.messages[-1] if self.messages else {}
        if last.get("role") != "assistant" or any(last.get(key) is not None for key in taken):
            last = {"role": "assistant", "content": None}
            self.messages.append(last)
        return last

    def _add_thought(self, text: str) -> None:
        message = self._assistant(("reasoning_content", "content", "tool_calls"))
        message["reasoning_content"] = text

    def _add_said(self, text: str) -> None:
        last = self.messages[-1] if self.messages else {}
        if last.get("tool_calls"):  # text behind a call of the same answer
            last["content"] = (last["content"] or "") + text
        else:
            self._assistant(("content",))["content"] = text

    def _add_call(self, item: Item, where: str) -> None:
        self._call_ids.add(item["call_id"])
        self._assistant(()).setdefault("tool_calls", []).append(
            {
                "id": item["call_id"],
                "type": "function",
                "function": {
                    "name": item["name"],
                    "arguments": _arguments(item["arguments"], where),
                },
            }
        )

    def _add_output(self, item: Item, where: str) -> None:
        if item["call_id"] not in self._call_ids:
            raise ApiError(
                f"No function_call with the call_id {item['call_id']!r} comes before its "
                "function_call_output. Send the call as well, or previous_response_id.",
                param=f"{where}.call_id",
            )
        self.messages.append(
            {
                "role": "tool",
                "tool_call_id": item["call_id"],
                "content": _content(item["output"]),
            }
        )


def _content(content: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Text, or parts where there are several: how they are joined is the template's matter."""
    if isinstance(content, str):
        return content
    if len(content) == 1:
        return _text(content)
    return [{"type": "text", "text": _text([part])} for part in content]


def _text(parts: Sequence[dict[str, Any]]) -> str:
    return "".join(part["refusal" if part["type"] == "refusal" else "text"] for part in parts)


def _arguments(text: str, where: str) -> dict[str, Any]:
    arguments = read_call_arguments(text)
    if arguments is None:
        raise ApiError(
            f"The arguments of a function_call must be the text of a JSON object, got "
            f"{text!r:.80}.",
            param=where if where == "previous_response_id" else f"{where}.arguments",
            code="invalid_value",
        )
    return arguments
