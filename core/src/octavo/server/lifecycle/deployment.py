"""Everything that ``octavo serve`` was asked for: the models, and the server over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from octavo.config import EngineConfig
from octavo.errors import UsageError
from octavo.server.config import ServerConfig
from octavo.suggest import choices

if TYPE_CHECKING:
    from octavo.server.engines.load import EnginePlacement

__all__ = ["PLACEMENTS", "Deployment", "ModelPlan"]

PLACEMENTS: tuple[EnginePlacement, ...] = ("process", "thread")


@dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """One model to be served: its engine, its names, and how its answers are read."""

    names: tuple[str, ...]
    """What requests may call it; the first is what answers call it."""
    engine: EngineConfig
    placement: EnginePlacement = "process"
    """Whether its step loop has a process of its own, or a thread of the server's."""
    tool_call_parser: str | None = None
    """None: found from the model's chat template; "none": no tool calls, and no tools."""
    reasoning_parser: str | None = None
    """None: found from the model's chat template; "none": no reasoning."""
    chat_template: str | None = None
    """Jinja source that replaces the model's own."""
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    """Handed to the chat template with every request that does not set them itself."""

    def __post_init__(self) -> None:
        """Raise UsageError for a model without a name, or a place that there is not."""
        if self.placement not in PLACEMENTS:
            raise UsageError(
                f"engine_placement={self.placement!r} is unknown; use one of {choices(PLACEMENTS)}."
            )
        if not self.names or any(not name.strip() for name in self.names):
            raise UsageError(f"The model {self.engine.model!r} has an empty name: {self.names}.")


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The models of one process and the server's options."""

    server: ServerConfig
    models: tuple[ModelPlan, ...]
    config_file: str | None = None
    """Where options were read from, for the plan that is shown."""

    def __post_init__(self) -> None:
        """Raise UsageError without a model, or where two share a name."""
        if not self.models:
            raise UsageError(
                "No model to serve: name one (octavo serve MODEL), or several with "
                "--model NAME=MODEL, or in the file that --config names."
            )
        counts = Counter(name for model in self.models for name in model.names)
        shared = [name for name, count in counts.items() if count > 1]
        if shared:
            raise UsageError(
                f"The name {shared[0]!r} is given to more than one model: names must differ, or "
                "a request could not tell which it means."
            )
