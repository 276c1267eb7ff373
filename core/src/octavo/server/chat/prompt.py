"""From the messages of a turn to its prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octavo.errors import UsageError
from octavo.server.chat.template_fit import rendered_as_it_fits
from octavo.server.chat.tools import shows_tools, told_of_tools, tool_format
from octavo.server.errors import ApiError
from octavo.tokenizer import choose_template, render_chat

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
    if num_chars > _LONG_CHARS or task.chat_template is not None:
        return await asyncio.to_thread(_prompt, model, task)
    return _prompt(model, task)


def _prompt(model: ServedModel, task: ChatTask) -> ChatPrompt:
    tokenizer = model.require_tokenizer()
    try:
        text = _rendered(model, task)
    except UsageError as error:
        param = "messages" if task.chat_template is None else "chat_template"
        raise ApiError(str(error), param=param) from error
    return ChatPrompt(text, tokenizer.encode(text, add_special_tokens=task.add_special_tokens))


def _rendered(model: ServedModel, task: ChatTask) -> str:
    tokenizer = model.require_tokenizer()
    called = tool_format(model, task)
    template = task.chat_template or model.chat_template
    source = choose_template(tokenizer, template, with_tools=called is not None)
    messages = list(task.messages)
    if called is not None and not shows_tools(source):
        messages = told_of_tools(messages, task, called, model.name)
    variables = {**model.template_variables, **task.template_variables}
    _check_variables(variables)

    def render(form: Sequence[Mapping[str, Any]]) -> str:
        return render_chat(
            tokenizer,
            form,
            tools=None if called is None else list(task.tools),
            documents=task.documents,
            add_generation_prompt=task.add_generation_prompt,
            continue_final_message=task.continue_final_message,
            chat_template=source,
            **variables,
        )

    return rendered_as_it_fits(render, messages, source)


_OWN_NAMES = (
    "tokenizer",
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template",
)


def _check_variables(variables: Mapping[str, Any]) -> None:
    for name in _OWN_NAMES:
        if name in variables:
            raise ApiError(
                f"chat_template_kwargs cannot set {name!r}, which has a parameter of its own or "
                "belongs to the server.",
                param="chat_template_kwargs",
            )
