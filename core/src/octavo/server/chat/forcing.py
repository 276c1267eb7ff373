"""The grammar of an answer, given tools, their choice, and what the content has to look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octavo.server.chat.task import ChatTask
    from octavo.server.served_model import ServedModel
    from octavo.structured import StructuredOutputs

__all__ = ["forced_outputs"]


def forced_outputs(model: ServedModel, task: ChatTask, prompt: str) -> StructuredOutputs | None:
    """What the engine is to enforce; None: nothing.

    ``prompt`` is the rendered prompt, whose end tells whether the answer begins in its reasoning.
    Raises ApiError where a call is demanded that nothing here can force.
    """
    del model, prompt
    return task.params.structured_outputs  # type: ignore[return-value]  # it has been made one
