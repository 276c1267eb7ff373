"""Blocks of content and messages as clients of /v1/messages send them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator
from pydantic_core import PydanticCustomError

from octavo.server.validation import StrictBody, UnusableType
from octavo.suggest import choices

__all__ = [
    "InputMessage",
    "TextBlock",
    "ThinkingBlock",
    "ToolResultBlock",
    "ToolUseBlock",
]

_WITHOUT_EFFECT = "Without effect."
_CACHED_ANYWAY = "Without effect: every prefix is cached by itself."
_BLOCK_TYPES = ("text", "thinking", "tool_use", "tool_result")


class _OtherBlock(UnusableType):
    """Stands for all types that cannot be used, so that the error can name them."""

    expected = f"{choices(_BLOCK_TYPES)}, as the model takes text only"


class TextBlock(StrictBody):
    """A piece of text."""

    type: Literal["text"]
    text: str
    cache_control: Any = Field(None, description=_CACHED_ANYWAY)
    citations: Any = Field(None, description=_WITHOUT_EFFECT)
    parsed_output: Any = Field(None, description=_WITHOUT_EFFECT)


class ThinkingBlock(StrictBody):
    """What the model thought before an earlier answer."""

    type: Literal["thinking"]
    thinking: str
    signature: str = Field("", description=_WITHOUT_EFFECT)
    cache_control: Any = Field(None, description=_CACHED_ANYWAY)


class ToolUseBlock(StrictBody):
    """A call that an earlier answer made."""

    type: Literal["tool_use"]
    id: str
    name: str = Field(min_length=1)
    input: dict[str, Any]
    cache_control: Any = Field(None, description=_CACHED_ANYWAY)
    caller: Any = Field(None, description=_WITHOUT_EFFECT)
    toolset_name: None = None


def _block_kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"{kind} block" if kind in _BLOCK_TYPES else "other block"


def _text_kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "text block" if kind == "text" else "other block"


class _NoText(_OtherBlock):
    """Stands for whatever is no text."""

    @field_validator("type", mode="before")
    @classmethod
    def _refuse(cls, value: Any) -> Any:
        del value
        raise PydanticCustomError(
            "unsupported_type", "expected 'text', as the model takes text only"
        )


# Tags with a space in them are left out of the path that an error names.
TextOnly = Annotated[
    Annotated[TextBlock, Tag("text block")] | Annotated[_NoText, Tag("other block")],
    Discriminator(_text_kind),
]


class ToolResultBlock(StrictBody):
    """What a call gave back."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[TextOnly] | None = None
    is_error: bool | None = None
    cache_control: Any = Field(None, description=_CACHED_ANYWAY)
    toolset_name: None = None


Block = Annotated[
    Annotated[TextBlock, Tag("text block")]
    | Annotated[ThinkingBlock, Tag("thinking block")]
    | Annotated[ToolUseBlock, Tag("tool_use block")]
    | Annotated[ToolResultBlock, Tag("tool_result block")]
    | Annotated[_OtherBlock, Tag("other block")],
    Discriminator(_block_kind),
]


class InputMessage(StrictBody):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]
