"""From the messages of a turn to its prompt."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.errors import UsageError
from octavo.server.errors import ApiError
from octavo.tokenizer import render_chat

if TYPE_CHECKING:
    from octavo.server.chat.task import ChatTask
    from octavo.server.served_model import ServedModel

__all__ = ["ChatPrompt", "chat_prompt"]

_LONG_CHARS = 20_000  # more than this is rendered and encoded beside the event loop


@dataclass(frozen=True)
class ChatPrompt:
    """What the template made of the messages."""

    text: str
    token_ids: list[int]


async def chat_prompt(model: ServedModel, task: ChatTask) -> ChatPrompt:
    """Render and encode; raises ApiError for messages that cannot become a prompt."""
    num_chars = sum(len(str(message.get("content"))) for message in task.messages)
    if num_chars > _LONG_CHARS:
        return await asyncio.to_thread(_prompt, model, task)
    return _prompt(model, task)


def _prompt(model: ServedModel, task: ChatTask) -> ChatPrompt:
    tokenizer = model.require_tokenizer()
    shows_tools = bool(task.tools) and task.tool_choice.kind != "none"
    try:
        text = render_chat(
            tokenizer,
            task.messages,
            tools=list(task.tools) if shows_tools else None,
            documents=task.documents,
            add_generation_prompt=task.add_generation_prompt,
            continue_final_message=task.continue_final_message,
            chat_template=task.chat_template or model.chat_template,
            **{**model.template_variables, **task.template_variables},
        )
    except UsageError as error:
        raise ApiError(str(error), param="messages") from error
    return ChatPrompt(text, tokenizer.encode(text, add_special_tokens=task.add_special_tokens))
