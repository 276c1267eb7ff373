"""From a chat completion's request to the turn of a chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from octavo.server.chat import ChatTask, ToolChoice
from octavo.server.chat_completions.choice import tool_choice, tools_of
from octavo.server.chat_completions.messages import template_messages
from octavo.server.chat_completions.response_format import content_form
from octavo.server.errors import ApiError

if TYPE_CHECKING:
    from octavo.sampling_params import SamplingParams
    from octavo.server.config import ServerConfig
    from octavo.server.protocol.chat import ChatRequest

__all__ = ["chat_task"]

_REFUSED = {
    "audio": "answers are text",
    "web_search_options": "nothing is searched here",
    "mm_processor_kwargs": "the model takes text only",
}


def chat_task(body: ChatRequest, defaults: SamplingParams, config: ServerConfig) -> ChatTask:
    """What a request asks for; ``defaults`` are the model's. Raises ApiError."""
    _check_refused(body)
    _check_stream(body)
    tools, choice = tools_of(body), tool_choice(body)
    return ChatTask(
        messages=template_messages(body.messages),
        params=_params(body, defaults, config),
        form_param="structured_outputs" if body.structured_outputs else "response_format",
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=_is_parallel(body, choice),
        streams_arguments=bool(body.stream),
        add_generation_prompt=_adds_prompt(body),
        continue_final_message=bool(body.continue_final_message),
        add_special_tokens=bool(body.add_special_tokens),
        chat_template=body.chat_template,
        documents=body.documents,
        template_variables=_template_variables(body),
        max_prompt_tokens=config.max_prompt_tokens,
        priority=body.priority or 0,
        cache_salt=body.cache_salt,
    )


def _check_refused(body: ChatRequest) -> None:
    for name, reason in _REFUSED.items():
        if getattr(body, name) is not None:
            raise ApiError(f"{name} cannot be used: {reason}. Leave it out.", param=name)
    if body.modalities is not None and body.modalities != ["text"]:
        raise ApiError(
            f'modalities={body.modalities} cannot be used: answers are text, so only ["text"] can '
            "be asked for.",
            param="modalities",
        )
    if body.store:
        raise ApiError(
            "store=true cannot be used: this server stores no completions. Leave it out.",
            param="store",
        )


def _check_stream(body: ChatRequest) -> None:
    if body.stream:
        if body.prompt_logprobs is not None:
            raise ApiError(
                "prompt_logprobs cannot be streamed. Leave stream out.", param="prompt_logprobs"
            )
    elif body.stream_options is not None:
        raise ApiError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )


def _params(body: ChatRequest, defaults: SamplingParams, config: ServerConfig) -> SamplingParams:
    if (body.n or 1) > config.max_choices:
        raise ApiError(
            f"n={body.n} is more than the {config.max_choices} answers that this server gives to "
            "one request.",
            param="n",
        )
    return body.sampling_params(
        defaults,
        max_tokens=_max_tokens(body),
        logprobs=_num_logprobs(body),
        structured_outputs=content_form(body),
    )


def _max_tokens(body: ChatRequest) -> int | None:
    old, new = body.max_tokens, body.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise ApiError(
            f"max_tokens={old} and max_completion_tokens={new} are two names of one limit. Give "
            "only max_completion_tokens.",
            param="max_tokens",
        )
    return old if new is None else new


def _num_logprobs(body: ChatRequest) -> int | None:
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise ApiError(
            f"top_logprobs={body.top_logprobs} needs logprobs=true as well.", param="top_logprobs"
        )
    return None


def _is_parallel(body: ChatRequest, choice: ToolChoice) -> bool:
    """Whether there may be several calls; the older form has room for one only."""
    if body.functions is not None or choice.kind == "named":
        return False
    return body.parallel_tool_calls is not False


def _adds_prompt(body: ChatRequest) -> bool:
    if body.add_generation_prompt is None:
        return not body.continue_final_message
    return body.add_generation_prompt


def _template_variables(body: ChatRequest) -> Mapping[str, Any]:
    variables: dict[str, Any] = {}
    if body.reasoning_effort is not None:
        variables["reasoning_effort"] = body.reasoning_effort
        if body.reasoning_effort == "none":
            variables["enable_thinking"] = False
    return variables | (body.chat_template_kwargs or {})
