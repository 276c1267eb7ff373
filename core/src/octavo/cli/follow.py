"""``octavo follow``: lend this machine's devices to the process that serves a model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from octavo.cli.options import ENGINE_OPTIONS, with_options

__all__ = ["follow"]


@with_options(ENGINE_OPTIONS)
def follow(
    model: Annotated[str, typer.Argument(help="A .gguf file, a folder, or a hub name.")],
    engine: dict[str, Any] | None = None,
) -> None:
    """Run the steps of the first process of a group, until it ends.

    For models that are divided among devices of several machines: start this on all but the first,
    with the model and the options that the first one has.

    [bold]Examples[/bold]

      octavo follow MODEL --backend jax --tensor-parallel-size 8
    """
    from octavo.config import EngineConfig
    from octavo.follower import follow as follow_first

    follow_first(EngineConfig.from_options(model, engine or {}))
