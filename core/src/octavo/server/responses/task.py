"""From a request for a response to the turn of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from octavo.server.chat import ChatTask, ToolChoice
from octavo.server.errors import ApiError
from octavo.server.protocol.responses import AllowedTools, NamedTool
from octavo.server.responses.conversation import conversation_messages
from octavo.server.sampling_fields import SamplingFields
from octavo.structured.limits import TIDY_SPACE
from octavo.suggest import choices, did_you_mean

if TYPE_CHECKING:
    from octavo.sampling_params import SamplingParams
    from octavo.server.config import ServerConfig
    from octavo.server.protocol.responses import ResponseRequest
    from octavo.server.responses.items import Item

__all__ = ["has_logprobs", "response_task"]

_REFUSED = {
    "conversation": "no conversations are kept here; use previous_response_id",
    "prompt": "no prompts are kept here; send instructions and input",
}


def response_task(
    body: ResponseRequest,
    defaults: SamplingParams,
    config: ServerConfig,
    earlier: Sequence[Item],
    given: Sequence[Item],
) -> ChatTask:
    """What a request asks for; ``defaults`` are the model's. Raises ApiError.

    ``earlier`` are the items of the responses before, ``given`` those of the request.
    """
    _check(body)
    return ChatTask(
        messages=conversation_messages(body.instructions, earlier, given),
        params=_params(body, defaults),
        form_param="text.format",
        tools=_tools(body),
        tool_choice=_tool_choice(body),
        parallel_tool_calls=body.parallel_tool_calls is not False,
        streams_arguments=bool(body.stream),
        template_variables=_template_variables(body),
        max_prompt_tokens=config.max_prompt_tokens,
        priority=body.priority or 0,
        cache_salt=body.cache_salt,
    )


def has_logprobs(body: ResponseRequest) -> bool:
    """Whether the answer's text comes with log-probabilities."""
    return bool(body.top_logprobs) or "message.output_text.logprobs" in (body.include or ())


def _check(body: ResponseRequest) -> None:
    for name, reason in _REFUSED.items():
        if getattr(body, name) is not None:
            raise ApiError(f"{name} cannot be used: {reason}.", param=name)
    if body.background and body.store is False:
        raise ApiError(
            "background=true needs store=true: the response is fetched from the store.",
            param="background",
        )
    if body.stream_options is not None and not body.stream:
        raise ApiError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )


def _params(body: ResponseRequest, defaults: SamplingParams) -> SamplingParams:
    shared = {name: getattr(body, name, None) for name in SamplingFields.model_fields}
    return SamplingFields(**shared).sampling_params(
        defaults,
        max_tokens=body.max_output_tokens,
        logprobs=(body.top_logprobs or 0) if has_logprobs(body) else None,
        structured_outputs=_form(body),
    )


def _form(body: ResponseRequest) -> dict[str, Any] | None:
    wanted = body.text.format if body.text is not None else None
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"json_object": True, "whitespace_pattern": TIDY_SPACE}
    if wanted.schema_ is None:
        raise ApiError(
            "Missing required parameter: 'text.format.schema'.",
            param="text.format.schema",
            code="missing_required_parameter",
        )
    return {"json": wanted.schema_, "whitespace_pattern": TIDY_SPACE}


def _tools(body: ResponseRequest) -> list[dict[str, Any]]:
    names = [tool.name for tool in body.functions]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ApiError(f"'tools' has two functions named {twice[0]!r}.", param="tools")
    return [
        {
            "type": "function",
            "function": tool.model_dump(
                exclude_none=True, include={"name", "description", "parameters"}
            ),
        }
        for tool in body.functions
    ]


def _tool_choice(body: ResponseRequest) -> ToolChoice:
    wanted = body.tool_choice
    names = [tool.name for tool in body.functions]
    if not names and wanted not in (None, "none", "auto"):
        raise ApiError(
            "'tool_choice' demands a call, and there are no 'tools' that could be called.",
            param="tool_choice",
        )
    match wanted:
        case NamedTool():
            return ToolChoice("named", _known(wanted.name, names))
        case AllowedTools():
            allowed = tuple(_known(tool.name, names) for tool in wanted.tools)
            return ToolChoice(wanted.mode, allowed=allowed)
    return ToolChoice(wanted or "auto")


def _known(name: str, names: Sequence[str]) -> str:
    if name in names:
        return name
    raise ApiError(
        f"'tool_choice' names the function {name!r}, which is not among the 'tools'."
        f"{did_you_mean(name, names)} There are: {choices(names)}.",
        param="tool_choice",
    )


def _template_variables(body: ResponseRequest) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    effort = body.reasoning.effort if body.reasoning is not None else None
    if effort is not None:
        variables["reasoning_effort"] = effort
        if effort == "none":
            variables["enable_thinking"] = False
    return variables | (body.chat_template_kwargs or {})
