"""From a request to /v1/messages to the turn of a chat."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from octavo.server.chat import ChatTask, ToolChoice
from octavo.server.errors import ApiError
from octavo.server.messages.conversation import chat_messages
from octavo.server.protocol.messages import NamedChoice
from octavo.server.sampling_fields import SamplingFields
from octavo.structured.limits import TIDY_SPACE
from octavo.suggest import choices, did_you_mean

if TYPE_CHECKING:
    from octavo.sampling_params import SamplingParams
    from octavo.server.config import ServerConfig
    from octavo.server.protocol.messages import CountTokensRequest, MessageRequest

__all__ = ["counted_task", "message_task"]

_KINDS = {"auto": "auto", "any": "required", "none": "none"}


def message_task(body: MessageRequest, defaults: SamplingParams, config: ServerConfig) -> ChatTask:
    """What a request asks for; ``defaults`` are the model's. Raises ApiError."""
    budget = body.thinking.budget_tokens if body.thinking is not None else None
    if budget is not None and budget >= body.max_tokens:
        raise ApiError(
            f"thinking.budget_tokens={budget} must be less than max_tokens={body.max_tokens}.",
            param="thinking.budget_tokens",
        )
    given: dict[str, Any] = {
        name: getattr(body, name) for name in ("temperature", "top_p", "top_k")
    }
    params = SamplingFields(**given, stop=body.stop_sequences).sampling_params(
        defaults, max_tokens=body.max_tokens, structured_outputs=_form(body)
    )
    return replace(
        _task(body, params),
        streams_arguments=bool(body.stream),
        max_prompt_tokens=config.max_prompt_tokens,
    )


def counted_task(body: CountTokensRequest, defaults: SamplingParams) -> ChatTask:
    """The same without an answer, for its prompt alone."""
    return _task(body, defaults)


def _task(body: CountTokensRequest, params: SamplingParams) -> ChatTask:
    messages = chat_messages(body)
    goes_on = messages[-1]["role"] == "assistant"
    if goes_on and (messages[-1].keys() != {"role", "content"} or not messages[-1]["content"]):
        raise ApiError(
            "The last message is the assistant's. It can be gone on with if it is text and nothing "
            "else; behind calls, their tool_result blocks are expected.",
            param="messages",
        )
    choice = body.tool_choice
    return ChatTask(
        messages=messages,
        params=params,
        form_param="output_config.format",
        tools=_tools(body),
        tool_choice=_tool_choice(body),
        parallel_tool_calls=not (choice is not None and choice.disable_parallel_tool_use),
        add_generation_prompt=not goes_on,
        continue_final_message=goes_on,
        template_variables=_template_variables(body),
    )


def _form(body: MessageRequest) -> dict[str, Any] | None:
    wanted = body.output_config.format if body.output_config is not None else None
    wanted = wanted or body.output_format
    if wanted is None:
        return None
    return {"json": wanted.schema_, "whitespace_pattern": TIDY_SPACE}


def _tools(body: CountTokensRequest) -> list[dict[str, Any]]:
    names = [tool.name for tool in body.own_tools]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ApiError(f"There are two tools named {twice[0]!r}.", param="tools")
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                **({} if tool.description is None else {"description": tool.description}),
                "parameters": tool.input_schema,
            },
        }
        for tool in body.own_tools
    ]


def _tool_choice(body: CountTokensRequest) -> ToolChoice:
    wanted = body.tool_choice
    names = [tool.name for tool in body.own_tools]
    if wanted is None:
        return ToolChoice()
    if not names and wanted.type in ("any", "tool"):
        raise ApiError(
            f"tool_choice {wanted.type!r} demands a call, and there are no tools that could be "
            "called.",
            param="tool_choice",
        )
    if not isinstance(wanted, NamedChoice):
        return ToolChoice(_KINDS[wanted.type])  # type: ignore[arg-type]  # one of its kinds
    if wanted.name not in names:
        raise ApiError(
            f"tool_choice names {wanted.name!r:.100}, which is not among the tools."
            f"{did_you_mean(wanted.name, names)} There are: {choices(names)}.",
            param="tool_choice.name",
        )
    return ToolChoice("named", wanted.name)


def _template_variables(body: CountTokensRequest) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    if body.thinking is not None:
        thinks = body.thinking.type != "disabled"
        # Qwen's and DeepSeek's names; a template that knows neither reads neither.
        variables = {"enable_thinking": thinks, "thinking": thinks}
    if body.output_config is not None and body.output_config.effort is not None:
        variables["reasoning_effort"] = body.output_config.effort
    return variables
