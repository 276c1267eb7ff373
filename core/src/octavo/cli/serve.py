"""``octavo serve``: models over HTTP, as OpenAI's and Anthropic's clients expect them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Any

import typer

from octavo.cli.options import ENGINE_OPTIONS, with_options
from octavo.cli.serve_options import MODEL_OPTIONS, SERVER_OPTIONS
from octavo.errors import UsageError

__all__ = ["serve"]

_PACKAGES = ("fastapi", "uvicorn", "prometheus_client")


@with_options(MODEL_OPTIONS, SERVER_OPTIONS, ENGINE_OPTIONS)
def serve(
    model: Annotated[
        str | None, typer.Argument(help="A .gguf file, a folder, or a hub name.")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME=MODEL[,OPTION=VALUE...]",
            help="One of several models, with engine options of its own; repeatable.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Read options from this TOML file; flags win over it."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what would be served, where and how; load nothing."),
    ] = False,
    model_flags: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    engine: dict[str, Any] | None = None,
) -> None:
    """Serve models over HTTP: OpenAI's API, Anthropic's messages, a chat page at /.

    Ctrl-C or SIGTERM lets running requests end; a second Ctrl-C does not.

    [bold]Examples[/bold]

      octavo serve model.gguf

      octavo serve org/name --host 0.0.0.0 --port 80 --api-key-file keys.txt

      octavo serve --model chat=org/large,device=cuda:0 --model tiny=small.gguf,device=cpu

      octavo serve --config serve.toml --dry-run
    """
    from octavo.cli.serve_file import ServeFile, read_serve_file
    from octavo.cli.serve_plan import deployment_of

    flags = {"model": model_flags or {}, "server": server or {}, "engine": engine or {}}
    file = ServeFile() if config is None else read_serve_file(config)
    deployment = deployment_of(model, models or [], flags, file)
    if dry_run:
        from octavo.cli.serve_dry_run import print_deployment

        print_deployment(deployment)
        return
    _require_packages()
    from octavo.server.lifecycle.run import run_server  # heavy: only when the arguments are good

    raise typer.Exit(run_server(deployment))


def _require_packages() -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"octavo serve needs {', '.join(missing)}, not installed here: "
            'pip install "octavo[serve]"'
        )
