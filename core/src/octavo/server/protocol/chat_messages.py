"""Messages of a chat as clients send them, in the words of OpenAI's API."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from octavo.server.validation import StrictBody

__all__ = ["CalledFunction", "ChatMessage", "ContentPart", "MessageToolCall"]

_WITHOUT_EFFECT = "Without effect."


class ContentPart(StrictBody):
    """A piece of a message; text can be used, and whatever else there is is refused."""

    type: str
    text: str | None = None
    refusal: str | None = None

    image_url: Any = Field(None, description="Refused.")
    input_audio: Any = Field(None, description="Refused.")
    audio_url: Any = Field(None, description="Refused.")
    video_url: Any = Field(None, description="Refused.")
    file: Any = Field(None, description="Refused.")
    annotations: Any = Field(None, description=_WITHOUT_EFFECT)
    cache_control: Any = Field(None, description=_WITHOUT_EFFECT)
    prompt_cache_breakpoint: Any = Field(None, description=_WITHOUT_EFFECT)


class CalledFunction(StrictBody):
    """The function of a call that was made."""

    name: str = Field(min_length=1)
    arguments: str | dict[str, Any] | None = Field(
        None, description="The text of a JSON object, or the object itself."
    )


class MessageToolCall(StrictBody):
    """A call that the assistant made in an earlier turn."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = Field(None, description=_WITHOUT_EFFECT)


class ChatMessage(StrictBody):
    """One message, of any role."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[str | ContentPart] | None = None
    name: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None
    function_call: CalledFunction | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = Field(None, description="Another name of reasoning_content.")

    audio: Any = Field(None, description="Refused.")
    annotations: Any = Field(None, description=_WITHOUT_EFFECT)
    parsed: Any = Field(None, description=_WITHOUT_EFFECT)
    provider_specific_fields: Any = Field(None, description=_WITHOUT_EFFECT)
    cache_control: Any = Field(None, description=_WITHOUT_EFFECT)
