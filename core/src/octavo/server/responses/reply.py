"""The response object: what it repeats of its request, and how it ends."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octavo.server.responses.task import has_logprobs

if TYPE_CHECKING:
    from octavo.server.chat import ChatTask, ChatUsage
    from octavo.server.protocol.responses import FunctionTool, ResponseRequest

__all__ = ["ReplyForm", "new_response", "usage_object"]


@dataclass(frozen=True)
class ReplyForm:
    """What a request says of the form of its answer."""

    has_logprobs: bool = False
    num_top_logprobs: int = 0
    seals_reasoning: bool = False
    """Reasoning items have ``encrypted_content``."""

    @classmethod
    def of(cls, body: ResponseRequest) -> ReplyForm:
        """The form that a request asks for."""
        return cls(
            has_logprobs=has_logprobs(body),
            num_top_logprobs=body.top_logprobs or 0,
            seals_reasoning="reasoning.encrypted_content" in (body.include or ()),
        )


def new_response(
    body: ResponseRequest, task: ChatTask, response_id: str, model: str
) -> dict[str, Any]:
    """A response that has no output yet."""
    params = task.params
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(time.time()),
        "status": "queued" if body.background else "in_progress",
        "background": bool(body.background),
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": task.parallel_tool_calls,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {
            "effort": body.reasoning.effort if body.reasoning else None,
            "summary": None,
        },
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": body.store is not False,
        "temperature": params.temperature,
        "text": {
            "format": _format(body),
            "verbosity": (body.text and body.text.verbosity) or "medium",
        },
        "tool_choice": _tool_choice(body),
        "tools": [_tool(tool) for tool in body.functions],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": params.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": body.user,
    }


def usage_object(usage: ChatUsage) -> dict[str, Any]:
    """Tokens of a turn."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": 0,  # nobody is charged for them
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _format(body: ResponseRequest) -> dict[str, Any]:
    wanted = body.text.format if body.text is not None else None
    if wanted is None or wanted.type != "json_schema":
        return {"type": "text" if wanted is None else wanted.type}
    return {
        "type": "json_schema",
        "name": wanted.name or "schema",
        "description": wanted.description,
        "schema": wanted.schema_,
        "strict": wanted.strict,
    }


def _tool(tool: FunctionTool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }


def _tool_choice(body: ResponseRequest) -> Any:
    wanted = body.tool_choice or "auto"
    return wanted if isinstance(wanted, str) else wanted.model_dump()
