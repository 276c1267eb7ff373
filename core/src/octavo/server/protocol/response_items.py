"""Items of a conversation as clients of /v1/responses send them, and as they get them back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator
from pydantic_core import PydanticCustomError

from octavo.server.validation import StrictBody
from octavo.suggest import choices

__all__ = [
    "FunctionCall",
    "FunctionCallOutput",
    "InputItem",
    "InputMessage",
    "ItemReference",
    "ReasoningItem",
    "TextPart",
]

_WITHOUT_EFFECT = "Without effect."
_ITEM_TYPES = (
    "message",
    "function_call",
    "function_call_output",
    "reasoning",
    "item_reference",
)
_PART_TYPES = ("input_text", "output_text", "text", "refusal")


class _Other(StrictBody):
    """Stands for all types that cannot be used, so that the error can name them."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"not": {}})

    type: Any = Field(None, validate_default=True)


class _OtherPart(_Other):
    """A part of a message that is no text."""

    @field_validator("type", mode="before")
    @classmethod
    def _refuse(cls, value: Any) -> Any:
        del value
        raise _unsupported(_PART_TYPES, "the model takes text only")


class _OtherItem(_Other):
    """An item of a tool that this server does not have."""

    @field_validator("type", mode="before")
    @classmethod
    def _refuse(cls, value: Any) -> Any:
        del value
        raise _unsupported(_ITEM_TYPES, "this server has no tools of its own")


def _unsupported(known: tuple[str, ...], reason: str) -> PydanticCustomError:
    return PydanticCustomError("unsupported_type", f"expected {choices(known)}, as {reason}")


class TextPart(StrictBody):
    """A piece of a message's text."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: Any = Field(None, description=_WITHOUT_EFFECT)
    logprobs: Any = Field(None, description=_WITHOUT_EFFECT)
    parsed: Any = Field(None, description=_WITHOUT_EFFECT)
    prompt_cache_breakpoint: Any = Field(None, description=_WITHOUT_EFFECT)


class RefusalPart(StrictBody):
    """What an assistant said when it refused."""

    type: Literal["refusal"]
    refusal: str


def _part_kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    if kind == "refusal":
        return "refusal part"
    return "text part" if kind in ("input_text", "output_text", "text") else "other part"


# Tags with a space in them are left out of the path that an error names.
ContentPart = Annotated[
    Annotated[TextPart, Tag("text part")]
    | Annotated[RefusalPart, Tag("refusal part")]
    | Annotated[_OtherPart, Tag("other part")],
    Discriminator(_part_kind),
]


class InputMessage(StrictBody):
    """A message of any role, or one that an earlier answer held."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[ContentPart]
    id: str | None = None
    status: str | None = Field(None, description=_WITHOUT_EFFECT)
    phase: str | None = Field(None, description=_WITHOUT_EFFECT)


class FunctionCall(StrictBody):
    """A call that an earlier answer made."""

    type: Literal["function_call"]
    call_id: str
    name: str = Field(min_length=1)
    arguments: str
    id: str | None = None
    status: str | None = Field(None, description=_WITHOUT_EFFECT)
    namespace: None = None
    caller: Any = Field(None, description=_WITHOUT_EFFECT)
    async_: bool | None = Field(None, alias="async", description=_WITHOUT_EFFECT)
    parsed_arguments: Any = Field(None, description=_WITHOUT_EFFECT)


class FunctionCallOutput(StrictBody):
    """What the function gave back."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[ContentPart]
    id: str | None = None
    status: str | None = Field(None, description=_WITHOUT_EFFECT)
    caller: Any = Field(None, description=_WITHOUT_EFFECT)


class ReasoningText(StrictBody):
    """A piece of reasoning."""

    type: Literal["reasoning_text", "summary_text"]
    text: str


class ReasoningItem(StrictBody):
    """What the model thought before an earlier answer."""

    type: Literal["reasoning"]
    summary: list[ReasoningText] = Field(default_factory=list)
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = Field(
        None, description="Read where this server has written it and there is no content."
    )
    id: str | None = None
    status: str | None = Field(None, description=_WITHOUT_EFFECT)


class ItemReference(StrictBody):
    """An item of an earlier response that is still stored."""

    type: Literal["item_reference"]
    id: str


def _item_kind(value: Any) -> str:
    if isinstance(value, dict):
        # Some clients leave the type of messages away, and it may be left away for references.
        kind = value.get("type") or ("message" if "role" in value else None)
        if kind is None and set(value) <= {"id", "type"} and "id" in value:
            kind = "item_reference"
    else:
        kind = getattr(value, "type", None)
    return f"{kind} item" if kind in _ITEM_TYPES else "other item"


InputItem = Annotated[
    Annotated[InputMessage, Tag("message item")]
    | Annotated[FunctionCall, Tag("function_call item")]
    | Annotated[FunctionCallOutput, Tag("function_call_output item")]
    | Annotated[ReasoningItem, Tag("reasoning item")]
    | Annotated[ItemReference, Tag("item_reference item")]
    | Annotated[_OtherItem, Tag("other item")],
    Discriminator(_item_kind),
]
