"""``octavo plan``: will it fit? Weights, cache, and how many tokens and requests, per device."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octavo.cli.options import ENGINE_OPTIONS, with_options

if TYPE_CHECKING:
    from octavo.fit import FitReport

__all__ = ["plan"]


@with_options(ENGINE_OPTIONS)
def plan(
    model: Annotated[str, typer.Argument(help="A .gguf file, a folder, or a hub name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    engine: dict[str, Any] | None = None,
) -> None:
    """Say what a model needs and what each device here has, without loading any weight.

    [bold]Examples[/bold]

      octavo plan model.gguf

      octavo plan org/name --load-format dummy --max-model-len 8192
    """
    from octavo.config import EngineConfig
    from octavo.fit import fit_reports

    reports = fit_reports(EngineConfig.from_options(model, engine or {}))
    if as_json:
        print(json.dumps([report.as_record() for report in reports], indent=2))
        return
    for report in reports:
        _print(report)


def _print(report: FitReport) -> None:
    for label, value in report.lines():
        print(f"{label + ':':<18}{value}")
    print()
