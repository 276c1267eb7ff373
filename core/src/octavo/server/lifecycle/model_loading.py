"""From the plan of a model to one that answers: its engine, its names, its parsers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from octavo.errors import UsageError
from octavo.parsing import ModelClues, ParserRegistry, clues_of
from octavo.plugins import load_plugins
from octavo.policy import load_policy
from octavo.server.served_model import ServedModel, ServedModels

if TYPE_CHECKING:
    from octavo.parsing import ReasoningFormat, ToolCallFormat
    from octavo.server.lifecycle.deployment import ModelPlan
    from octavo.tokenizer import Tokenizer

__all__ = ["check_formats", "close_models", "formats_of", "load_models"]

NONE = "none"


async def load_models(plans: Sequence[ModelPlan]) -> ServedModels:
    """Load all models, one after the other; if one fails, those before it are closed again.

    Raises OctavoError.
    """
    loaded: list[ServedModel] = []
    try:
        for plan in plans:
            model = await _load_model(plan)
            loaded.append(model)
    except BaseException:
        await close_models(loaded)
        raise
    return ServedModels(loaded)


async def close_models(models: Sequence[ServedModel]) -> None:
    """Release every engine; raises the first error once all have been tried."""
    errors = []
    for model in models:
        try:
            await model.engine.close()
        except Exception as error:  # noqa: BLE001 - raised below, when the others are closed too
            errors.append(error)
    if errors:
        raise errors[0]


async def _load_model(plan: ModelPlan) -> ServedModel:
    from octavo.server.engines.load import load_engine_client

    check_formats(plan)
    engine = await load_engine_client(plan.engine, plan.placement)
    try:
        tool_calls, reasoning = formats_of(plan, engine.tokenizer)
    except BaseException:
        await engine.close()
        raise
    return ServedModel(
        names=plan.names,
        engine=engine,
        tool_calls=tool_calls,
        takes_tools=plan.tool_call_parser != NONE,
        reasoning=reasoning,
        chat_template=plan.chat_template,
        template_variables=plan.template_variables,
    )


def formats_of(
    plan: ModelPlan, tokenizer: Tokenizer | None
) -> tuple[ToolCallFormat | None, ReasoningFormat | None]:
    """How the model's tool calls and its reasoning are read: as asked for, or as its template says.

    Raises UsageError for a name that no parser has.
    """
    registry = ParserRegistry(load_plugins(load_policy(plan.engine.plugins_file)).parsers)
    clues = ModelClues("") if tokenizer is None else clues_of(tokenizer)
    if plan.chat_template is not None:
        clues = ModelClues(plan.chat_template, clues.special_tokens)
    tool_calls: ToolCallFormat | None = None
    if plan.tool_call_parser is None:
        tool_calls = registry.detect_tool_calls(clues)
    elif plan.tool_call_parser != NONE:
        tool_calls = registry.tool_call_format(plan.tool_call_parser)
    reasoning: ReasoningFormat | None = None
    if plan.reasoning_parser is None:
        reasoning = registry.detect_reasoning(clues)
    elif plan.reasoning_parser != NONE:
        reasoning = registry.reasoning_format(plan.reasoning_parser)
    return tool_calls, reasoning


def check_formats(plan: ModelPlan) -> None:
    """Raise UsageError for a chat template or a parser that there is not, before a load."""
    formats_of(plan, None)
    if plan.chat_template is None:
        return
    from jinja2 import TemplateSyntaxError

    from octavo.tokenizer.template_sandbox import compile_template

    try:
        compile_template(plan.chat_template)
    except TemplateSyntaxError as error:
        raise UsageError(
            f"The chat template is not valid Jinja: {error.message} (line {error.lineno})."
        ) from error
