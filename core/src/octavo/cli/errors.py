"""How a command ends badly: one clear message on stderr, an exit code, no traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from octavo.errors import OctavoError, UsageError
from octavo.isolation import has_abandoned_calls

__all__ = ["DEBUG_VARIABLE", "reporting_errors", "run_to_exit"]

DEBUG_VARIABLE = "OCTAVO_DEBUG"

_EXIT_FAILURE = 1
_EXIT_USAGE = 2
_EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count


@contextmanager
def reporting_errors(debug: bool) -> Iterator[None]:
    """Turn an OctavoError into its message and an exit code: 2 for a bad value, 1 otherwise."""
    try:
        yield
    except OctavoError as error:
        if debug or os.environ.get(DEBUG_VARIABLE, "") not in ("", "0"):
            traceback.print_exception(error)
        label = typer.style("error:", fg=typer.colors.RED, bold=True)
        typer.echo(f"{label} {error}", err=True)
        code = _EXIT_USAGE if isinstance(error, UsageError) else _EXIT_FAILURE
        raise typer.Exit(code) from error


def run_to_exit(command: Callable[[], object]) -> NoReturn:
    """Run a command line and leave the process; quiet on Ctrl-C and on a closed pipe."""
    code = _run(command)
    if has_abandoned_calls():
        # A plugin's thread that hangs inside a C extension may crash an orderly shutdown.
        os._exit(code)
    sys.exit(code)


def _run(command: Callable[[], object]) -> int:
    try:
        try:
            command()
            code = 0
        except SystemExit as ending:
            code = (
                ending.code if isinstance(ending.code, int) else _EXIT_FAILURE * bool(ending.code)
            )
        # Output may still sit in the buffer: a reader that has gone shows up only here.
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_FAILURE
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    return code
