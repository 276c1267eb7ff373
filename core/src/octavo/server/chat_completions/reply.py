"""How the answers of one request are to be written."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo.server.chat import ChatTask, ChatTurn, ChatUsage
    from octavo.server.protocol.chat import ChatRequest

__all__ = ["ReplyForm", "usage_object"]


@dataclass(frozen=True)
class ReplyForm:
    """What a request says of the form of its answers, and what all of them begin with."""

    request_id: str
    model: str
    has_logprobs: bool = False
    num_top_logprobs: int = 0
    shows_reasoning: bool = True
    shows_token_ids: bool = False
    writes_token_ids: bool = False
    """Tokens of log-probabilities are written as ``token_id:7``."""
    is_forced: bool = False
    """The function was named: such an answer ends with "stop", as OpenAI's does."""
    is_legacy: bool = False
    """Calls are written as ``function_call``."""
    echoed: str = ""
    """What is put before every answer."""
    has_usage: bool = False
    has_continuous_usage: bool = False
    created_s: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, body: ChatRequest, task: ChatTask, request_id: str, model: str) -> ReplyForm:
        """The form that a request asks for."""
        options = body.stream_options
        return cls(
            request_id=request_id,
            model=model,
            has_logprobs=bool(body.logprobs),
            num_top_logprobs=body.top_logprobs or 0,
            shows_reasoning=body.include_reasoning is not False,
            shows_token_ids=bool(body.return_token_ids),
            writes_token_ids=bool(body.return_tokens_as_token_ids),
            is_forced=task.tool_choice.kind == "named",
            is_legacy=body.functions is not None,
            echoed=_echoed(task) if body.echo else "",
            has_usage=bool(options and options.include_usage),
            has_continuous_usage=bool(options and options.continuous_usage_stats),
        )

    def head(self, kind: str) -> dict[str, Any]:
        """The members that every object of an answer begins with."""
        return {
            "id": self.request_id,
            "object": kind,
            "created": self.created_s,
            "model": self.model,
            "service_tier": None,
            "system_fingerprint": None,
        }

    def finish_reason(self, reason: str | None) -> str | None:
        """OpenAI's word for the end of an answer."""
        if reason != "tool_calls":
            return reason
        if self.is_forced:
            return "stop"
        return "function_call" if self.is_legacy else reason


def usage_object(turn: ChatTurn) -> dict[str, Any]:
    """Tokens of a turn so far."""
    usage: ChatUsage = turn.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _echoed(task: ChatTask) -> str:
    last = task.messages[-1]
    content = last.get("content")
    if last["role"] != "assistant" or content is None:
        return ""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)
