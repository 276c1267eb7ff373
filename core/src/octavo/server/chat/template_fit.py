"""Messages in the form that a chat template can read: templates differ in what they expect."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from octavo.errors import UsageError

__all__ = ["rendered_as_it_fits"]

Messages: TypeAlias = Sequence[Mapping[str, Any]]

_DEVELOPER = re.compile(r"\bdeveloper\b")


def rendered_as_it_fits(render: Callable[[Messages], str], messages: Messages, source: str) -> str:
    """The prompt, from the first form of the messages that the template ``source`` takes.

    Arguments of calls are objects for some templates and text for others; a message of calls alone
    has null for its content, which some refuse and some write out; few know the role "developer".
    Raises what ``render`` raised for the first form.
    """
    if not _DEVELOPER.search(source):
        messages = [_as_system(message) for message in messages]
    forms = _forms(messages)
    if len(forms) == 1:
        return render(forms[0])
    prompts: list[str] = []
    refusal: UsageError | None = None
    for form in forms:
        try:
            prompts.append(render(form))
        except UsageError as error:
            refusal = refusal or error
            continue
        if not _shows_python(prompts[-1], form, source):
            return prompts[-1]
    if not prompts and refusal is not None:
        raise refusal
    return prompts[0]


def _as_system(message: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**message, "role": "system"} if message["role"] == "developer" else message


def _forms(messages: Messages) -> list[Messages]:
    """The same messages written in different ways, the usual one first."""
    has_calls = any(message.get("tool_calls") for message in messages)
    has_null = any(message.get("content") is None for message in messages)
    forms = [_with_arguments(messages, as_text=False)] if has_calls else [messages]
    if has_null:
        forms.append(_with_content(forms[0]))
    if has_calls:
        forms.append(_with_arguments(messages, as_text=True))
        if has_null:
            forms.append(_with_content(forms[-1]))
    return forms


def _with_content(messages: Messages) -> Messages:
    return [
        {**message, "content": ""} if message.get("content") is None else message
        for message in messages
    ]


def _with_arguments(messages: Messages, *, as_text: bool) -> Messages:
    return [
        {
            **message,
            "tool_calls": [_with_call_arguments(call, as_text) for call in message["tool_calls"]],
        }
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _with_call_arguments(call: Mapping[str, Any], as_text: bool) -> Mapping[str, Any]:
    function = call.get("function", {})
    arguments = function.get("arguments")
    if as_text and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    elif not as_text and isinstance(arguments, str):
        arguments = _object_of(arguments)
    return {**call, "function": {**function, "arguments": arguments}}


def _object_of(text: str) -> Any:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _shows_python(prompt: str, messages: Messages, source: str) -> bool:
    """Whether a value is written out as Python has it, which no model has been trained on."""
    for message in messages:
        for call in message.get("tool_calls") or ():
            arguments = call.get("function", {}).get("arguments")
            if arguments and isinstance(arguments, dict) and str(arguments) in prompt:
                return True
    if "None" not in prompt or "None" in source:
        return False
    return "None" not in json.dumps(messages, ensure_ascii=False)
