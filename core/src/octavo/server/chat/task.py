"""What is asked of a turn, in a form that all chat interfaces come down to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from octavo.sampling_params import SamplingParams

__all__ = ["ChatTask", "ToolChoice"]


@dataclass(frozen=True)
class ToolChoice:
    """Which function the answer has to call."""

    kind: Literal["none", "auto", "required", "named"] = "auto"
    name: str | None = None
    """Of the one function, with the kind "named"."""


@dataclass(frozen=True, kw_only=True)
class ChatTask:
    """A conversation to be continued by ``params.n`` answers."""

    messages: Sequence[Mapping[str, Any]]
    """As OpenAI has them: role, content (text or text parts), tool_calls, tool_call_id, …"""
    params: SamplingParams
    """``structured_outputs`` is what the content has to look like."""
    tools: Sequence[Mapping[str, Any]] = ()
    """As OpenAI has them: {"type": "function", "function": {name, description, parameters}}."""
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    streams_arguments: bool = False
    """Hand out a call's arguments as they are written, not only once the call is complete."""
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template: str | None = None
    documents: Sequence[Mapping[str, Any]] | None = None
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    cache_salt: str | None = None
