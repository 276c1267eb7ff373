"""The body of a completion's request, and the JSON of its answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from octavo.server.protocol.chat import ResponseFormat, StreamOptions
from octavo.server.sampling_fields import SamplingFields

__all__ = ["CompletionRequest", "completion_object", "usage_object"]

_TOKEN_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_TEXT = {"type": "string", "minLength": 1}
_PROMPT_FORMS = [
    _TEXT,
    {"type": "array", "items": _TEXT, "minItems": 1},
    _TOKEN_IDS,
    {"type": "array", "items": _TOKEN_IDS, "minItems": 1},
]


class CompletionRequest(SamplingFields):
    """POST /v1/completions."""

    model: str | None = Field(None, description="Left out: the first model of the server.")
    # Checked by hand, once and quickly: a prompt may be a million numbers.
    prompt: Annotated[Any, WithJsonSchema({"anyOf": _PROMPT_FORMS})]
    max_tokens: int | None = Field(
        None, description="Left out: 16. With 0, and with echo, only the prompt is looked at."
    )
    max_completion_tokens: int | None = Field(None, description="Another name of max_tokens.")
    best_of: int | None = Field(
        None, description="Of so many answers, the n with the highest log-probability per token."
    )
    echo: bool | None = Field(None, description="Put the prompt before each answer.")
    logprobs: int | None = Field(
        None, description="How many of the likeliest tokens to list beside the chosen one."
    )
    suffix: str | None = Field(None, description="Refused, unless it is empty.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None

    add_special_tokens: bool | None = Field(
        None, description="Whether a prompt's tokens begin as the model is used to; left out: yes."
    )
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = Field(
        None, description="List log-probabilities by token_id:7 instead of by the token's text."
    )
    request_id: str | None = Field(
        None, min_length=1, max_length=128, description="Left out: X-Request-Id, or a new one."
    )

    use_beam_search: Literal[False] | None = Field(
        None, description="Without effect: there is no beam search, true is refused."
    )
    length_penalty: float | None = Field(
        None, ge=1, le=1, description="Without effect: it belongs to beam search."
    )
    early_stopping: Literal[False] | None = Field(
        None, description="Without effect: it belongs to beam search."
    )
    user: str | None = Field(None, description="Without effect.")


def completion_object(completion_id: str, created_s: int, model_name: str) -> dict[str, Any]:
    """What an answer and every chunk of it begin with."""
    return {
        "id": completion_id,
        "object": "text_completion",
        "created": created_s,
        "model": model_name,
    }


def usage_object(
    num_prompt_tokens: int, num_completion_tokens: int, num_cached_tokens: int
) -> dict[str, Any]:
    """``usage``: what was read, what was written, and what of the prompt was known already."""
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_completion_tokens,
        "total_tokens": num_prompt_tokens + num_completion_tokens,
        "prompt_tokens_details": {"cached_tokens": num_cached_tokens},
    }
