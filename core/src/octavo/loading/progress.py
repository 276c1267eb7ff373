"""Progress of a long load: a bar on a terminal, lines in a pipe, nothing for a quick one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["LoadProgress", "load_progress"]

_QUICK_LOAD_S = 0.5
_LINE_INTERVAL_S = 5.0

OnBytes = Callable[[int], None]
"""Called with the number of bytes loaded since the last call."""


class LoadProgress(Protocol):
    """What follows a load: told of bytes as they come, and of the end."""

    def advance(self, num_bytes: int) -> None:
        """So many more bytes are loaded."""
        ...

    def finish(self) -> None:
        """The load is over, or has failed."""
        ...


@contextmanager
def load_progress(total_bytes: int, label: str, *, quiet: bool = False) -> Iterator[OnBytes]:
    """Show how a load of ``total_bytes`` proceeds, on standard error.

    ::

        with load_progress(total_bytes, "SmolLM2") as on_bytes:
            on_bytes(tensor.nbytes)  # after each tensor
    """
    if quiet:
        yield lambda _num_bytes: None
        return
    progress = _start(total_bytes, label)
    try:
        yield progress.advance
    finally:
        progress.finish()


def _start(total_bytes: int, label: str) -> LoadProgress:
    if sys.stderr.isatty():
        return _Bar(total_bytes, label)
    return _Lines(total_bytes, label)


class _Lines:
    """A line every few seconds, and one at the end of a load that had any."""

    def __init__(self, total_bytes: int, label: str) -> None:
        self._total_bytes, self._label = max(1, total_bytes), label
        self._loaded_bytes = 0
        self._started_s = time.monotonic()
        self._next_line_s = self._started_s + _QUICK_LOAD_S
        self._has_printed = False

    def advance(self, num_bytes: int) -> None:
        self._loaded_bytes += num_bytes
        now_s = time.monotonic()
        if now_s < self._next_line_s:
            return
        self._next_line_s = now_s + _LINE_INTERVAL_S
        self._has_printed = True
        percent = min(100, 100 * self._loaded_bytes // self._total_bytes)
        self._print(f"loading {self._label}: {percent} % of {_megabytes(self._total_bytes)}")

    def finish(self) -> None:
        if self._has_printed:
            elapsed_s = time.monotonic() - self._started_s
            self._print(
                f"loaded {self._label}: {_megabytes(self._loaded_bytes)} in {elapsed_s:.1f} s"
            )

    def _print(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


class _Bar:
    """A rich progress bar that appears once the load turns out not to be quick."""

    def __init__(self, total_bytes: int, label: str) -> None:
        self._total_bytes, self._label = total_bytes, label
        self._waiting_bytes = 0
        self._started_s = time.monotonic()
        self._show: OnBytes | None = None
        self._stop: Callable[[], None] = lambda: None

    def advance(self, num_bytes: int) -> None:
        self._waiting_bytes += num_bytes
        if self._show is None and time.monotonic() - self._started_s < _QUICK_LOAD_S:
            return
        if self._show is None:
            self._show, self._stop = _rich_bar(self._total_bytes, self._label)
        self._show(self._waiting_bytes)
        self._waiting_bytes = 0

    def finish(self) -> None:
        self._stop()


def _rich_bar(total_bytes: int, label: str) -> tuple[OnBytes, Callable[[], None]]:
    # rich takes a tenth of a second to import, which a quick load should not pay
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    progress = Progress(
        TextColumn("loading {task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = progress.add_task(label, total=total_bytes)
    progress.start()
    return lambda num_bytes: progress.advance(task, num_bytes), progress.stop


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.0f} MB"
