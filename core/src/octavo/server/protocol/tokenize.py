"""The bodies of /tokenize and /detokenize, in vLLM's names."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from octavo.server.protocol.chat_messages import ChatMessage
from octavo.server.protocol.chat_tools import ChatTool
from octavo.server.validation import StrictBody

__all__ = ["MAX_CHARS", "MAX_TOKENS", "DetokenizeRequest", "TokenizeRequest"]

MAX_CHARS = 1 << 20
"""Longest text that is tokenized, in characters: a novel."""
MAX_TOKENS = 1 << 18
"""Most tokens that are turned into text at once."""
_MAX_TOOLS = 128


class TokenizeRequest(StrictBody):
    """POST /tokenize: a text, or a chat."""

    model: str | None = Field(None, description="Left out: the first model of the server.")
    prompt: str | None = Field(None, max_length=MAX_CHARS)
    messages: list[ChatMessage] | None = Field(None, min_length=1)
    add_special_tokens: bool | None = Field(
        None, description="Left out: as the model's prompts have them. A template writes its own."
    )
    return_token_strs: bool | None = Field(
        None, description="Tell how the vocabulary spells the tokens as well."
    )

    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: str | None = Field(
        None, description="Jinja source, or the name of one of the model's templates."
    )
    chat_template_kwargs: dict[str, Any] | None = None
    tools: list[ChatTool] | None = Field(None, max_length=_MAX_TOOLS)


class DetokenizeRequest(StrictBody):
    """POST /detokenize: token ids."""

    model: str | None = Field(None, description="Left out: the first model of the server.")
    tokens: list[Annotated[int, Field(ge=0)]] = Field(max_length=MAX_TOKENS)
