"""The models that a server offers, each under its names."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from octavo.server.errors import ApiError
from octavo.suggest import choices, did_you_mean

if TYPE_CHECKING:
    from octavo.parsing import ReasoningFormat, ToolCallFormat
    from octavo.server.engines.client import EngineClient
    from octavo.tokenizer import Tokenizer

__all__ = ["ServedModel", "ServedModels"]


@dataclass(frozen=True)
class ServedModel:
    """An engine, what it is called, and how its answers are read."""

    names: tuple[str, ...]
    """What requests may call it; the first is what answers call it."""
    engine: EngineClient
    tool_calls: ToolCallFormat | None = None
    """None: none is known, and calls are asked for as plain JSON."""
    takes_tools: bool = True
    """False: requests with tools that may be called are refused."""
    reasoning: ReasoningFormat | None = None
    chat_template: str | None = None
    """Jinja source that replaces the model's own."""
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    created_s: int = field(default_factory=lambda: int(time.time()))

    @property
    def name(self) -> str:
        """What answers call the model."""
        return self.names[0]

    def require_tokenizer(self) -> Tokenizer:
        """The tokenizer; raises ApiError if the model has none."""
        if self.engine.tokenizer is None:
            raise ApiError(
                f"The model {self.name!r} comes without a tokenizer: only /v1/completions with "
                "prompts of token ids can be used."
            )
        return self.engine.tokenizer


class ServedModels(Sequence[ServedModel]):
    """All models of a server, in the order they were given."""

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self._models = tuple(models)
        self._by_name = {name: model for model in self._models for name in model.names}

    def __len__(self) -> int:
        return len(self._models)

    def __getitem__(self, index: Any) -> Any:
        return self._models[index]

    def find(self, name: str | None) -> ServedModel:
        """The model of a name, the first one without a name; raises ApiError 404."""
        if name is None and self._models:
            return self._models[0]
        model = self._by_name.get(name or "")
        if model is None:
            raise ApiError(
                f"The model {name!r} does not exist.{did_you_mean(name or '', self._by_name)} "
                f"This server has: {choices(self._by_name)}.",
                status=HTTPStatus.NOT_FOUND,
                param="model",
                code="model_not_found",
            )
        return model
