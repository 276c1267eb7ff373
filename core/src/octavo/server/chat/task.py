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
    allowed: tuple[str, ...] | None = None
    """The functions that may be called, with the kinds "auto" and "required"; None: all."""


@dataclass(frozen=True, kw_only=True)
class ChatTask:
    """A conversation to be continued by ``params.n`` answers."""

    messages: Sequence[Mapping[str, Any]]
    """As OpenAI has them: role, content (text or text parts), tool_calls, tool_call_id, …"""
    params: SamplingParams
    """``structured_outputs`` is what the content has to look like."""
    form_param: str = "response_format"
    """What the request calls the content's form, for errors."""
    tools: Sequence[Mapping[str, Any]] = ()
    """As OpenAI has them: {"type": "function", "function": {name, description, parameters}}."""
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    streams_arguments: bool = False
    """Hand out a call's arguments as they are written, not only once the call is complete."""
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    """Let the tokenizer add its own; templates write them themselves as a rule."""
    chat_template: str | None = None
    documents: Sequence[Mapping[str, Any]] | None = None
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    max_prompt_tokens: int | None = None
    """A longer prompt is refused, unless it is to be truncated; None: as the context allows."""
    priority: int = 0
    cache_salt: str | None = None
