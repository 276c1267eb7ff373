"""Who takes part in a benchmark: an engine, its options, and the interpreter that has it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from engines import INSTALL, EngineOptions, why_missing
from worker import Worker, WorkerError


@dataclass(frozen=True)
class Contender:
    """An engine under a name of its own: one engine may take part in several ways."""

    name: str
    engine: str
    options: EngineOptions
    python: str = sys.executable


def add_python_option(parser: argparse.ArgumentParser) -> None:
    """``--python ENGINE=PATH``, for engines that need an environment of their own."""
    parser.add_argument(
        "--python",
        action="append",
        type=_engine_and_path,
        default=[],
        metavar="ENGINE=PATH",
        help="interpreter of another environment that has this engine; repeatable",
    )


def missing(contenders: Sequence[Contender]) -> list[str]:
    """A line for every engine that its interpreter cannot import."""
    needs = dict.fromkeys((c.engine, c.python) for c in contenders if c.engine in INSTALL)
    return [line for engine, python in needs if (line := why_missing(engine, python))]


def start(stack: ExitStack, contenders: Sequence[Contender]) -> list[Worker]:
    """Load all of them at the same time, each in its process; they end with ``stack``.

    One that fails is left out, with a line on standard error.
    """
    workers = [_launch(stack, contender) for contender in contenders]
    return [worker for worker in workers if _is_ready(worker)]


def _launch(stack: ExitStack, contender: Contender) -> Worker:
    worker = Worker(
        contender.name, contender.options, engine=contender.engine, python=contender.python
    )
    stack.callback(worker.close)
    return worker


def _is_ready(worker: Worker) -> bool:
    try:
        worker.wait_ready()
    except WorkerError as error:
        print(f"error: {error}", file=sys.stderr)
        return False
    print(f"{worker.name}: {worker.description}; loaded in {worker.load_s:.1f} s", flush=True)
    return True


def _engine_and_path(text: str) -> tuple[str, str]:
    engine, _, path = text.partition("=")
    if engine not in INSTALL or not path:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected ENGINE=PATH, ENGINE one of {', '.join(INSTALL)}"
        )
    return engine, path
