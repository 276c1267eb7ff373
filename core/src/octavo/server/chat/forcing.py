"""The grammar of an answer, given tools, their choice, and what the content has to look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from octavo.errors import UsageError
from octavo.parsing import tool_definitions
from octavo.server.chat.tools import callable_tools, tool_format
from octavo.server.errors import ApiError
from octavo.structured.call_parts import calls_part, text_with_calls
from octavo.structured.compiler import check_without_vocabulary
from octavo.structured.parts import (
    AnswerGrammar,
    ExactText,
    Formed,
    InOrder,
    OneOf,
    Part,
    Space,
    TextUntil,
)

if TYPE_CHECKING:
    from octavo.parsing import ReasoningFormat, ToolCallFormat
    from octavo.server.chat.task import ChatTask
    from octavo.server.served_model import ServedModel
    from octavo.structured import StructuredOutputs

__all__ = ["blamed_on", "forced_outputs"]


def forced_outputs(
    model: ServedModel, task: ChatTask, prompt: str
) -> StructuredOutputs | AnswerGrammar | None:
    """What the engine is to enforce; None: nothing.

    ``prompt`` is the rendered prompt, whose end tells whether the answer begins in its reasoning.
    Raises ApiError for tools whose calls cannot be enforced.
    """
    content = cast("StructuredOutputs | None", task.params.structured_outputs)
    reasoning = _reasoning_to_come(model, prompt)
    is_open = reasoning is not None and reasoning.is_open_after(prompt)
    barred = reasoning.begin if reasoning is not None and not is_open else ""
    called = tool_format(model, task)
    if called is None:
        body: Part | None = None if content is None else Formed(content)
    else:
        body = _body(called, task, content, barred)
    if body is None or (reasoning is None and isinstance(body, Formed)):
        return content
    return AnswerGrammar(_behind_reasoning(reasoning, body, is_open=is_open))


def _reasoning_to_come(model: ServedModel, prompt: str) -> ReasoningFormat | None:
    """The format of the reasoning, unless the prompt has it behind itself."""
    reasoning = model.reasoning
    if reasoning is not None and prompt.rstrip().endswith(reasoning.end):
        return None
    return reasoning


def blamed_on(error: ApiError, task: ChatTask) -> ApiError:
    """The error of a grammar that was refused, with the parameter that it comes from."""
    if not error.message.startswith("structured_outputs."):
        return error
    for index, tool in enumerate(task.tools):
        schema = tool.get("function", tool).get("parameters")
        reason = _fault(schema)
        if reason is not None:
            param = f"tools[{index}].function.parameters"
            return ApiError(f"Invalid schema for {param!r}: {reason}", param=param)
    return ApiError(error.message, param=task.form_param, code=error.code)


def _fault(schema: Any) -> str | None:
    """Why a schema cannot be compiled by itself; None if it can."""
    from octavo.structured import StructuredOutputs

    if not isinstance(schema, Mapping):
        return None
    try:
        check_without_vocabulary(StructuredOutputs(json=schema))
    except UsageError as error:
        return str(error).removeprefix("structured_outputs.json cannot be used: ")
    return None


def _body(
    called: ToolCallFormat, task: ChatTask, content: StructuredOutputs | None, barred: str
) -> Part | None:
    """What follows the reasoning; None: any text."""
    try:
        grammar = called.grammar(tool_definitions(callable_tools(task)))
        if task.tool_choice.kind in ("required", "named"):
            return calls_part(grammar, is_parallel=task.parallel_tool_calls)
        if content is not None:
            calls = calls_part(grammar, is_parallel=task.parallel_tool_calls)
            return OneOf((Formed(content), calls))
        return text_with_calls(
            grammar, _triggers(called), is_parallel=task.parallel_tool_calls, barred=barred
        )
    except UsageError as error:
        raise blamed_on(ApiError(str(error), param="tools"), task) from error


def _triggers(called: ToolCallFormat) -> Sequence[str]:
    """Marks that stand before nothing but calls; bare brackets stand before much else."""
    return [opener.text for opener in called.openers if not opener.at_line_start]


def _behind_reasoning(reasoning: ReasoningFormat | None, body: Part, *, is_open: bool) -> Part:
    """The reasoning is free, and ends with its tag; the model may leave it out."""
    if reasoning is None:
        return body
    behind = (TextUntil(reasoning.end), Space(), body)
    if is_open:
        return InOrder(behind)
    return OneOf((InOrder((Space(), ExactText(reasoning.begin), *behind)), body))
