"""The bodies of POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from octavo.server.protocol.message_blocks import InputMessage, TextOnly
from octavo.server.validation import StrictBody, UnusableType

__all__ = ["CountTokensRequest", "MessageRequest", "MessageTool", "NamedChoice"]

_WITHOUT_EFFECT = "Without effect."
_CACHED_ANYWAY = "Without effect: every prefix is cached by itself."
_MAX_TOOLS = 128
_INT32_MAX = 2**31 - 1
_TOOL_NAME = r"^[a-zA-Z0-9_.:/-]{1,128}$"


class MessageTool(StrictBody):
    """A tool of the client's own, which the model may call."""

    type: Literal["custom"] | None = None
    name: str = Field(pattern=_TOOL_NAME)
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = Field(
        None, description="Without effect: wherever a call is enforced, its schema is."
    )
    eager_input_streaming: bool | None = Field(None, description="Without effect: it always is.")
    defer_loading: Literal[False] | None = None
    allowed_callers: list[Literal["direct"]] | None = None
    cache_control: Any = Field(None, description=_CACHED_ANYWAY)


class _OtherTool(UnusableType):
    """Stands for the tools that Anthropic knows or runs itself."""

    expected = (
        "'custom' or nothing: this server takes tools with an input_schema of their own, and runs "
        "none itself"
    )


def _tool_kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "custom tool" if kind in (None, "custom") else "other tool"


Tool = Annotated[
    Annotated[MessageTool, Tag("custom tool")] | Annotated[_OtherTool, Tag("other tool")],
    Discriminator(_tool_kind),
]


class PlainChoice(StrictBody):
    """Whether a tool is to be called."""

    type: Literal["auto", "any", "none"]
    disable_parallel_tool_use: bool | None = None


class NamedChoice(StrictBody):
    """This tool is to be called."""

    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: bool | None = None


class Thinking(StrictBody):
    """Whether the model is to think before it answers."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(
        None, ge=1, description="Less than max_tokens; a target, which is not enforced."
    )
    display: Literal["summarized", "omitted"] | None = Field(
        None, description="summarized: the thinking itself, as no summaries are made."
    )


class JsonFormat(StrictBody):
    """The answer's text is JSON of this schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputOptions(StrictBody):
    """What the answer has to look like, and how much is to be thought about it."""

    effort: str | None = Field(None, description="Handed to the template as reasoning_effort.")
    format: JsonFormat | None = None


class Metadata(StrictBody):
    """Who asks."""

    user_id: str | None = Field(None, description=_WITHOUT_EFFECT)


class CountTokensRequest(StrictBody):
    """A conversation whose prompt is to be counted."""

    model: str
    messages: list[InputMessage] = Field(min_length=1)
    system: str | list[TextOnly] | None = None
    tools: list[Tool] | None = Field(None, max_length=_MAX_TOOLS)
    tool_choice: PlainChoice | NamedChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputOptions | None = None
    output_format: JsonFormat | None = Field(
        None, description="The older place of output_config.format."
    )
    cache_control: Any = Field(None, description=_CACHED_ANYWAY)
    context_management: dict[str, Any] | None = Field(
        None, description="Without effect: nothing is cleared from the conversation."
    )
    speed: Literal["standard"] | None = None

    @property
    def own_tools(self) -> list[MessageTool]:
        """The tools; there are none but the client's own."""
        return [tool for tool in self.tools or () if isinstance(tool, MessageTool)]


class MessageRequest(CountTokensRequest):
    """A message to be answered: Anthropic's parameters."""

    max_tokens: int = Field(ge=1, le=_INT32_MAX)
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    metadata: Metadata | None = None
    service_tier: str | None = Field(None, description=_WITHOUT_EFFECT)
