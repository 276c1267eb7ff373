"""Progress bars: over the requests of a batch, with the rate of tokens, and over counted work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octavo.outputs import RequestOutput

__all__ = ["counted_progress", "request_progress"]

Advance = Callable[["RequestOutput"], None]


@contextmanager
def request_progress(total: int, *, show: bool) -> Iterator[Advance]:
    """Yield a function to call with each finished request; a bar on a terminal, else silence."""
    if not show or not sys.stderr.isatty():
        yield lambda _output: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} tokens/s"),
    )
    started_s = time.monotonic()
    num_tokens = 0
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("requests", total=total, rate=0.0)

        def advance(output: RequestOutput) -> None:
            nonlocal num_tokens
            num_tokens += sum(len(answer.token_ids) for answer in output.outputs)
            seconds = max(time.monotonic() - started_s, 1e-9)
            bar.update(task, advance=1, rate=num_tokens / seconds)

        yield advance


@contextmanager
def counted_progress(total: int, label: str, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each piece of work; a bar on a terminal, else one line."""
    if quiet or not sys.stderr.isatty():
        started_s = time.monotonic()
        yield lambda: None
        if not quiet:
            seconds = time.monotonic() - started_s
            print(f"{total} {label} in {seconds:.1f} s.", file=sys.stderr)  # noqa: T201
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.update(task, advance=1)
