"""Blocks of an answer while they are being written, and the events that tell of them."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

__all__ = ["OpenBlock", "OpenText", "OpenThinking", "OpenToolUse", "StreamEvent"]

StreamEvent: TypeAlias = dict[str, Any]

SIGNATURE = "unsigned"
"""Clients drop thinking without a signature; nobody checks this one."""


class OpenBlock:
    """One block; ``block`` is complete once ``end`` has been called."""

    def __init__(self, index: int, block: dict[str, Any]) -> None:
        self.block = block
        self._index = index

    def begin(self) -> StreamEvent:
        """The event of the beginning."""
        return {
            "type": "content_block_start",
            "index": self._index,
            "content_block": {**self.block},
        }

    def end(self) -> list[StreamEvent]:
        """The events of the end."""
        return [{"type": "content_block_stop", "index": self._index}]

    def _delta(self, kind: str, name: str, text: str) -> StreamEvent:
        return {
            "type": "content_block_delta",
            "index": self._index,
            "delta": {"type": kind, name: text},
        }


class OpenText(OpenBlock):
    """What is said to the user."""

    def __init__(self, index: int) -> None:
        super().__init__(index, {"type": "text", "text": "", "citations": None})

    def add(self, text: str) -> list[StreamEvent]:
        """More of the text."""
        self.block["text"] += text
        return [self._delta("text_delta", "text", text)]


class OpenThinking(OpenBlock):
    """What is thought before; not shown where it is to be omitted."""

    def __init__(self, index: int, is_shown: bool) -> None:
        super().__init__(index, {"type": "thinking", "thinking": "", "signature": ""})
        self._is_shown = is_shown

    def add(self, text: str) -> list[StreamEvent]:
        """More of the thinking."""
        if not self._is_shown:
            return []
        self.block["thinking"] += text
        return [self._delta("thinking_delta", "thinking", text)]

    def end(self) -> list[StreamEvent]:
        """The signature, and the end."""
        self.block["signature"] = SIGNATURE
        return [self._delta("signature_delta", "signature", SIGNATURE), *super().end()]


class OpenToolUse(OpenBlock):
    """A call of a tool."""

    def __init__(self, index: int, call_id: str, name: str) -> None:
        tool_use_id = f"toolu_{call_id.rpartition('_')[2]}"
        block = {"type": "tool_use", "id": tool_use_id, "name": name, "input": {}}
        super().__init__(index, block)
        self._arguments = ""

    def add(self, text: str) -> list[StreamEvent]:
        """More of the input, which is JSON."""
        if not text:
            return []
        self._arguments += text
        return [self._delta("input_json_delta", "partial_json", text)]

    def end(self) -> list[StreamEvent]:
        """The end; only where it is streamed can the input be cut off, and then it is not read."""
        try:
            self.block["input"] = json.loads(self._arguments or "{}")
        except ValueError:
            self.block["input"] = {}
        return super().end()
