"""The model that a configuration names: whose code of it runs, said where it is not Octavo's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octavo.errors import UsageError
from octavo.open_device import tell

if TYPE_CHECKING:
    from octavo.config import EngineConfig
    from octavo.loading import Checkpoint
    from octavo.models.base import Model
    from octavo.plugins import Plugins

__all__ = ["configured_model"]


def configured_model(
    config: EngineConfig, checkpoint: Checkpoint, plugins: Plugins, backend: str
) -> Model:
    """Build it for a backend, without weights. Raises OctavoError."""
    from octavo.models.registry import build_model, choose_implementation

    chosen = choose_implementation(checkpoint.config, plugins.models, backend, config.model_impl)
    if chosen != "octavo":
        if config.quantization is not None:
            raise UsageError(
                f"quantization={config.quantization!r} is for models that Octavo has written; "
                f"{checkpoint.name} runs through {chosen}: leave it out."
            )
        if config.model_impl == "auto":
            tell(config, f"{checkpoint.name} is not one of Octavo's models: {chosen} runs it.")
    return build_model(checkpoint.config, plugins.models, backend, chosen)
