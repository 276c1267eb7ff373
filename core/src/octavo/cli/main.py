"""The ``octavo`` command: what it can do, and where each command lives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from octavo.cli.errors import run_to_exit
from octavo.cli.lazy import CommandEntry, LazyGroup
from octavo.policy import PLUGINS_FILE_VARIABLE

__all__ = ["COMMANDS", "app", "main"]

_RUN = "Run a model"
_LOOK = "See what is here"

COMMANDS = {
    "chat": CommandEntry("octavo.cli.chat:chat", "Talk to a model.", _RUN),
    "generate": CommandEntry(
        "octavo.cli.generate:generate", "Complete prompts, one or many at once.", _RUN
    ),
    "serve": CommandEntry(
        "octavo.cli.serve:serve", "Serve models over HTTP, to OpenAI's clients and others.", _RUN
    ),
    "follow": CommandEntry(
        "octavo.cli.follow:follow", "Lend devices to a server on another machine.", _RUN
    ),
    "plan": CommandEntry(
        "octavo.cli.plan:plan", "Tell whether a model fits, and how much context with it.", _RUN
    ),
    "bench": CommandEntry(
        "octavo.cli.bench:bench", "Measure a model's throughput and latency here.", _RUN
    ),
    "devices": CommandEntry(
        "octavo.cli.devices:devices", "Devices, who serves them, and what is missing.", _LOOK
    ),
    "plugins": CommandEntry(
        "octavo.cli.plugins:plugins", "Installed plugins, used, blocked or broken.", _LOOK
    ),
    "ops": CommandEntry("octavo.cli.ops:ops", "Who serves each op on a device, and why.", _LOOK),
    "conform": CommandEntry("octavo.cli.conform:conform", "Prove a backend right.", _LOOK),
}
"""To add a command, add a line here; its module is imported only when the command is called."""


class _OctavoGroup(LazyGroup):
    entries = COMMANDS


app = typer.Typer(
    cls=_OctavoGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from octavo import __version__

        typer.echo(f"octavo {__version__}")
        raise typer.Exit


@app.callback()
def octavo(
    ctx: typer.Context,
    plugins_file: Annotated[
        Path | None,
        typer.Option(
            help="Read this plugins.toml instead of the one found first.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error ($OCTAVO_DEBUG=1).")
    ] = False,
    version: Annotated[  # noqa: ARG001 - typer reads it
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Run language models on whatever hardware is at hand.

    MODEL is a .gguf file, a folder with config.json and safetensors, or a Hugging Face name.

    [bold]Examples[/bold]

      octavo devices                       what can run a model here

      octavo plan MODEL                    does it fit, and how much context

      octavo chat MODEL                    talk to it

      octavo generate MODEL "Once upon"    complete a prompt

      octavo serve MODEL                   to OpenAI's clients, over HTTP

      octavo bench MODEL                   how fast it is here

    Every command explains itself: octavo COMMAND --help
    """
    del debug  # read by the group when an error has to be shown
    if plugins_file is not None:
        _set_for_this_command(ctx, PLUGINS_FILE_VARIABLE, str(plugins_file))


def _set_for_this_command(ctx: typer.Context, variable: str, value: str) -> None:
    """Set an environment variable until the command ends; every command reads it."""
    earlier = os.environ.get(variable)
    os.environ[variable] = value

    def restore() -> None:
        if earlier is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = earlier

    ctx.call_on_close(restore)


def main() -> NoReturn:
    """Entry point of the console script."""
    run_to_exit(lambda: app(prog_name="octavo"))


if __name__ == "__main__":
    main()
