"""From chat messages to a prompt: the checkpoint's own template, rendered in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from jinja2.exceptions import TemplateSyntaxError

from octavo.errors import UsageError
from octavo.suggest import choices
from octavo.tokenizer.base import Tokenizer
from octavo.tokenizer.chat_messages import (
    join_parts,
    plain_data,
    plain_messages,
    shows_parts,
)
from octavo.tokenizer.template_sandbox import TEMPLATE_NAME, compile_template

__all__ = ["choose_template", "encode_chat", "render_chat"]

Message: TypeAlias = Mapping[str, Any]

_END_MARK = "\ue000END_OF_FINAL_MESSAGE\ue001 "


def render_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    chat_template: str | None = None,
    **template_variables: Any,
) -> str:
    """The prompt that the template makes of the messages.

    `chat_template` is Jinja source, or the name of one of the checkpoint's templates; without it
    "tool_use" is taken where there are tools and a template of that name, else "default". Content
    in parts is joined by line breaks for templates that know only text. `template_variables` are
    passed on (``enable_thinking=False``, …). Whatever is wrong with the messages or the template is
    a UsageError.
    """
    source = choose_template(tokenizer, chat_template, with_tools=bool(tools))
    if continue_final_message and add_generation_prompt:
        raise UsageError(
            "continue_final_message goes on with the last message and add_generation_prompt opens "
            "a new one: set add_generation_prompt=False."
        )
    chat = plain_messages(messages)
    if continue_final_message:
        _mark_end(chat)
    variables = {
        **tokenizer.special_tokens,
        **plain_data(template_variables),
        "messages": chat,
        "tools": None if tools is None else _objects(tools, "tools"),
        "documents": None if documents is None else _objects(documents, "documents"),
        "add_generation_prompt": add_generation_prompt,
    }
    prompt = _render_parts(source, variables)
    return _cut_at_mark(prompt) if continue_final_message else prompt


def encode_chat(tokenizer: Tokenizer, messages: Sequence[Message], **options: Any) -> list[int]:
    """Token ids of `render_chat`; the template has written BOS itself, so none is added."""
    return tokenizer.encode(render_chat(tokenizer, messages, **options), add_special_tokens=False)


def choose_template(tokenizer: Tokenizer, chat_template: str | None, *, with_tools: bool) -> str:
    """The source of the template that `render_chat` takes; raises UsageError if there is none."""
    known = tokenizer.chat_template or {}
    if isinstance(known, str):
        known = {"default": known}
    if chat_template is not None:
        return known.get(chat_template, chat_template)
    for name in ("tool_use", "default") if with_tools else ("default",):
        if name in known:
            return known[name]
    if known:
        raise UsageError(
            "The model has several chat templates and none is the default one: choose with "
            f"chat_template one of: {choices(sorted(known))}."
        )
    raise UsageError(
        "The model brings no chat template, so chat messages cannot become a prompt. It is perhaps "
        "a base model: use generate, or pass a template with chat_template."
    )


def _objects(values: Sequence[Any], what: str) -> Any:
    for index, value in enumerate(values):
        if not isinstance(value, Mapping):
            raise UsageError(
                f"{what}[{index}] is a {type(value).__name__}, expected a JSON object."
            )
    return plain_data(list(values))


def _render_parts(source: str, variables: dict[str, Any]) -> str:
    """The prompt; a template that cannot read content in parts gets it as text."""
    chat = variables["messages"]
    if not any(isinstance(message.get("content"), list) for message in chat):
        return _render(source, variables)
    try:
        prompt = _render(source, variables)
    except UsageError:
        prompt = ""
    if prompt and shows_parts(prompt, chat):
        return prompt
    return _render(source, {**variables, "messages": join_parts(chat)})


def _render(source: str, variables: dict[str, Any]) -> str:
    try:
        return compile_template(source)(**variables)
    except TemplateSyntaxError as error:
        raise UsageError(
            f"The chat template is not valid Jinja: {error.message} (line {error.lineno})."
        ) from error
    except RecursionError as error:
        raise UsageError("The chat template was refused: it recurses too deeply.") from error
    except Exception as error:  # a template can raise anything
        line = _template_line(error)
        raise UsageError(
            f"The chat template refused the messages{line}: {str(error) or type(error).__name__}"
        ) from error


def _template_line(error: BaseException) -> str:
    traceback, line = error.__traceback__, None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == TEMPLATE_NAME:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return "" if line is None else f" (line {line})"


def _mark_end(chat: list[dict[str, Any]]) -> None:
    """Put the mark behind the text of the last message."""
    content = chat[-1].get("content") if chat else None
    if isinstance(content, str):
        chat[-1]["content"] = content + _END_MARK
        return
    if not content:
        raise UsageError("continue_final_message needs a last message with text to go on with.")
    content[-1] = {**content[-1], "text": content[-1]["text"] + _END_MARK}


def _cut_at_mark(prompt: str) -> str:
    """The prompt up to the mark, so without what the template closes the message with."""
    before, mark, after = prompt.rpartition(_END_MARK.rstrip())
    if not mark:
        raise UsageError(
            "continue_final_message cannot be done with this chat template: the text of the last "
            "message does not appear in the prompt."
        )
    # The blank that ends the mark is gone if the template trims the text.
    return before if after.startswith(" ") else before.rstrip()
