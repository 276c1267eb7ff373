"""The checkpoint that a configuration names: the second half of loading a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octavo.config import EngineConfig
    from octavo.loading import Checkpoint

__all__ = ["configured_checkpoint"]


def configured_checkpoint(config: EngineConfig) -> Checkpoint:
    """Open it as ``config`` asks; no weight is read. Raises OctavoError."""
    from octavo.loading import open_checkpoint

    return open_checkpoint(
        config.model,
        load_format=config.load_format,
        revision=config.revision,
        tokenizer=config.tokenizer,
        download_dir=config.download_dir,
        config_overrides=config.hf_overrides,
        seed=config.seed,
    )
