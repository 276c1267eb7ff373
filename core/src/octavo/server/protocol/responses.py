"""The body of POST /v1/responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from octavo.server.protocol.response_items import InputItem
from octavo.server.validation import StrictBody, UnusableType

__all__ = ["FunctionTool", "ResponseRequest", "TextFormat"]

_WITHOUT_EFFECT = "Without effect."
_MAX_TOOLS = 128
_MAX_METADATA = 16
_INT32_MAX = 2**31 - 1
_FUNCTION_NAME = r"^[a-zA-Z0-9_.:/-]{1,128}$"


class FunctionTool(StrictBody):
    """A function that the model may call."""

    type: Literal["function"]
    name: str = Field(pattern=_FUNCTION_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = Field(
        None, description="Without effect: wherever a call is enforced, its schema is."
    )
    defer_loading: Literal[False] | None = None
    allowed_callers: list[Literal["direct"]] | None = None


class _OtherTool(UnusableType):
    """Stands for the tools that OpenAI runs itself."""

    expected = "'function', as this server runs no tools of its own"


def _tool_kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "function tool" if kind == "function" else "other tool"


Tool = Annotated[
    Annotated[FunctionTool, Tag("function tool")] | Annotated[_OtherTool, Tag("other tool")],
    Discriminator(_tool_kind),
]


class NamedTool(StrictBody):
    """One of the functions."""

    type: Literal["function"]
    name: str


class AllowedTools(StrictBody):
    """The answer may, or has to, call one of these functions; the others are shown all the same."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1)


class TextFormat(StrictBody):
    """What the text of the answer has to look like."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    description: str | None = None
    strict: bool | None = Field(None, description="Without effect: the schema is always enforced.")


class TextOptions(StrictBody):
    """Options of the answer's text."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = Field(None, description=_WITHOUT_EFFECT)


class ReasoningOptions(StrictBody):
    """Options of what the model thinks before it answers."""

    effort: str | None = Field(
        None, description='Handed to the chat template; "none" sets enable_thinking=False as well.'
    )
    summary: Literal["auto"] | None = Field(
        None, description="No summaries are made: the reasoning itself is the item's content."
    )
    generate_summary: Literal["auto"] | None = None


class StreamOptions(StrictBody):
    """Options of a stream."""

    include_obfuscation: bool | None = Field(None, description=_WITHOUT_EFFECT)


Includable = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    # Of tools that there are not: nothing is left out.
    "web_search_call.action.sources",
    "web_search_call.results",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
]


class ResponseRequest(StrictBody):
    """A response to be made: OpenAI's parameters, and vLLM's further sampling parameters."""

    model: str | None = Field(None, description="Left out: the first model of the server.")
    input: str | Annotated[list[InputItem], Field(min_length=1)]
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: list[Tool] | None = Field(None, max_length=_MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    include: list[Includable] | None = None
    max_output_tokens: int | None = Field(None, ge=1, le=_INT32_MAX)
    top_logprobs: int | None = Field(None, ge=0)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    background: bool | None = None
    store: bool | None = Field(None, description="Left out: true.")
    metadata: dict[str, str] | None = Field(None, max_length=_MAX_METADATA)
    truncation: Literal["disabled"] | None = None

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=4096)
    priority: int | None = None
    cache_salt: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    conversation: Any = Field(None, description="Refused.")
    prompt: Any = Field(None, description="Refused.")

    max_tool_calls: int | None = Field(None, description="Without effect: of tools run here.")
    service_tier: str | None = Field(None, description=_WITHOUT_EFFECT)
    user: str | None = Field(None, description=_WITHOUT_EFFECT)
    safety_identifier: str | None = Field(None, description=_WITHOUT_EFFECT)
    prompt_cache_key: str | None = Field(None, description=_WITHOUT_EFFECT)
    prompt_cache_retention: str | None = Field(None, description=_WITHOUT_EFFECT)
    prompt_cache_options: dict[str, Any] | None = Field(None, description=_WITHOUT_EFFECT)

    @property
    def functions(self) -> list[FunctionTool]:
        """The tools; there are none but functions."""
        return [tool for tool in self.tools or () if isinstance(tool, FunctionTool)]
