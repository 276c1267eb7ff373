"""The body of a chat completion's request: OpenAI's parameters and vLLM's further ones."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from octavo.server.protocol.chat_messages import ChatMessage
from octavo.server.protocol.chat_tools import (
    AllowedToolsChoice,
    ChatTool,
    FunctionDefinition,
    NamedFunction,
    NamedToolChoice,
)
from octavo.server.sampling_fields import SamplingFields
from octavo.server.validation import StrictBody

__all__ = ["ChatRequest", "JsonSchemaFormat", "ResponseFormat", "StreamOptions"]

_WITHOUT_EFFECT = "Without effect."
_MAX_TOOLS = 128


class JsonSchemaFormat(StrictBody):
    """A named JSON schema."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = Field(None, description="Without effect: the schema is always enforced.")


class ResponseFormat(StrictBody):
    """What the content has to look like."""

    type: Literal["text", "json_object", "json_schema", "structural_tag"]
    json_schema: JsonSchemaFormat | None = None
    schema_: dict[str, Any] | None = Field(
        None, alias="schema", description="With json_object: as llama.cpp has it."
    )
    triggers: list[str] | None = Field(None, description="With structural_tag.")
    structures: list[dict[str, Any]] | None = Field(None, description="With structural_tag.")


class StreamOptions(StrictBody):
    """What a stream holds beside the answer."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = Field(None, description=_WITHOUT_EFFECT)


class ChatRequest(SamplingFields):
    """POST /v1/chat/completions."""

    model: str | None = Field(None, description="Left out: the first model of the server.")
    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = None
    max_tokens: int | None = Field(None, description="The older name of max_completion_tokens.")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    tools: list[ChatTool] | None = Field(None, max_length=_MAX_TOOLS)
    tool_choice: (
        Literal["none", "auto", "required"] | NamedToolChoice | AllowedToolsChoice | None
    ) = None
    parallel_tool_calls: bool | None = None
    functions: list[FunctionDefinition] | None = Field(
        None, max_length=_MAX_TOOLS, description="The older form of tools."
    )
    function_call: Literal["none", "auto"] | NamedFunction | None = Field(
        None, description="The older form of tool_choice."
    )
    reasoning_effort: str | None = Field(
        None, description='Handed to the chat template; "none" sets enable_thinking=False as well.'
    )

    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    add_special_tokens: bool | None = None
    echo: bool | None = Field(
        None, description="Put the last message before the answer, if it is the assistant's."
    )
    chat_template: str | None = Field(
        None, description="Jinja source, or the name of one of the model's templates."
    )
    chat_template_kwargs: dict[str, Any] | None = None
    documents: list[dict[str, Any]] | None = None
    include_reasoning: bool | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None

    modalities: list[str] | None = Field(None, description='["text"], or refused.')
    audio: Any = Field(None, description="Refused.")
    web_search_options: Any = Field(None, description="Refused.")
    mm_processor_kwargs: Any = Field(None, description="Refused.")
    store: bool | None = Field(None, description="Nothing is stored: true is refused.")

    user: str | None = Field(None, description=_WITHOUT_EFFECT)
    metadata: dict[str, Any] | None = Field(None, description=_WITHOUT_EFFECT)
    service_tier: str | None = Field(None, description=_WITHOUT_EFFECT)
    safety_identifier: str | None = Field(None, description=_WITHOUT_EFFECT)
    prompt_cache_key: str | None = Field(None, description=_WITHOUT_EFFECT)
    prompt_cache_retention: str | None = Field(None, description=_WITHOUT_EFFECT)
    prediction: Any = Field(None, description="Without effect: it can only save time.")
    verbosity: str | None = Field(None, description=_WITHOUT_EFFECT)
