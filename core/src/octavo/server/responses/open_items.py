"""Items of an answer while they are being written, and the events that tell of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

from octavo.server.responses.ids import new_id
from octavo.server.responses.items import sealed_reasoning

__all__ = ["OpenCall", "OpenItem", "OpenMessage", "OpenReasoning", "StreamEvent"]

StreamEvent: TypeAlias = dict[str, Any]
"""An event without its number."""


class OpenItem:
    """One item; ``item`` is complete once ``end`` has been called."""

    def __init__(self, output_index: int, item: dict[str, Any]) -> None:
        self.item = item
        self._index = output_index

    def begin(self) -> list[StreamEvent]:
        """The events of the beginning."""
        return [
            {
                "type": "response.output_item.added",
                "output_index": self._index,
                "item": {**self.item},
            }
        ]

    def end(self, status: str) -> list[StreamEvent]:
        """The events of the end; ``status`` is completed or incomplete."""
        self.item["status"] = status
        return [
            {
                "type": "response.output_item.done",
                "output_index": self._index,
                "item": {**self.item},
            }
        ]

    def _event(self, kind: str, **more: Any) -> StreamEvent:
        return {
            "type": kind,
            "item_id": self.item["id"],
            "output_index": self._index,
            **more,
        }


class _OpenText(OpenItem, ABC):
    """An item whose content is one part of text."""

    kind = ""

    def __init__(self, output_index: int, item: dict[str, Any]) -> None:
        super().__init__(output_index, item)
        self.text = ""

    @abstractmethod
    def part(self) -> dict[str, Any]:
        """The content as of now."""

    def begin(self) -> list[StreamEvent]:
        """The events of the beginning."""
        return [
            *super().begin(),
            self._event("response.content_part.added", content_index=0, part=self.part()),
        ]

    def add(self, text: str, **more: Any) -> StreamEvent:
        """More of the text."""
        self.text += text
        return self._event(f"{self.kind}.delta", content_index=0, delta=text, **more)

    def _end(self, status: str, **more: Any) -> list[StreamEvent]:
        part = self.part()
        self.item["content"] = [part]
        return [
            self._event(f"{self.kind}.done", content_index=0, text=self.text, **more),
            self._event("response.content_part.done", content_index=0, part=part),
            *super().end(status),
        ]


class OpenMessage(_OpenText):
    """What is said to the user."""

    kind = "response.output_text"

    def __init__(self, output_index: int, has_logprobs: bool) -> None:
        super().__init__(
            output_index,
            {
                "id": new_id("msg"),
                "type": "message",
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            },
        )
        self._has_logprobs = has_logprobs
        self._logprobs: list[dict[str, Any]] = []

    def part(self) -> dict[str, Any]:
        """The text, with log-probabilities if they were asked for."""
        part: dict[str, Any] = {"type": "output_text", "text": self.text, "annotations": []}
        if self._has_logprobs:
            part["logprobs"] = [*self._logprobs]
        return part

    def say(self, text: str, logprobs: list[dict[str, Any]]) -> StreamEvent:
        """More of the text and its tokens."""
        self._logprobs += logprobs
        return self.add(text, logprobs=logprobs)

    def end(self, status: str) -> list[StreamEvent]:
        """The events of the end."""
        return self._end(status, logprobs=[*self._logprobs])


class OpenReasoning(_OpenText):
    """What is thought before."""

    kind = "response.reasoning_text"

    def __init__(self, output_index: int, is_sealed: bool) -> None:
        item = {"id": new_id("rs"), "type": "reasoning", "summary": [], "content": []}
        super().__init__(output_index, {**item, "status": "in_progress"})
        self._is_sealed = is_sealed

    def part(self) -> dict[str, Any]:
        """The text."""
        return {"type": "reasoning_text", "text": self.text}

    def end(self, status: str) -> list[StreamEvent]:
        """The events of the end."""
        if self._is_sealed:
            self.item["encrypted_content"] = sealed_reasoning(self.text)
        return self._end(status)


class OpenCall(OpenItem):
    """A call of a function."""

    def __init__(self, output_index: int, call_id: str, name: str) -> None:
        super().__init__(
            output_index,
            {
                "id": new_id("fc"),
                "type": "function_call",
                "status": "in_progress",
                "call_id": call_id,
                "name": name,
                "arguments": "",
            },
        )

    def add(self, text: str) -> StreamEvent:
        """More of the arguments."""
        self.item["arguments"] += text
        return self._event("response.function_call_arguments.delta", delta=text)

    def end(self, status: str) -> list[StreamEvent]:
        """The events of the end."""
        arguments, name = self.item["arguments"], self.item["name"]
        kind = "response.function_call_arguments.done"
        return [self._event(kind, name=name, arguments=arguments), *super().end(status)]
