"""A time limit for steps: they run in one lasting thread, which is left behind when one hangs."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from octavo.isolation import mark_abandoned

__all__ = ["Hang", "StepGuard", "Watchdog"]

T = TypeVar("T")


class Hang(Exception):  # noqa: N818 - it never leaves the engine, which tells every request
    """A call has not come back within the limit; what it works on must not be touched any more."""


class Watchdog:
    """Calls functions one at a time and waits ``limit_s`` seconds for each.

    A thread cannot be ended from outside: after a Hang nothing more can be called. The thread is
    a daemon, so the process can still end.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.is_hung = False
        self._calls: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="octavo-step", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], T]) -> T:
        """What ``function`` returns or raises; raises Hang if it does neither within the limit.

        Ctrl-C while it runs is raised once the call is over, or the limit is.
        """
        if self.is_hung:
            raise Hang("an earlier call still runs")
        deadline_s = time.monotonic() + self.limit_s
        self._calls.put(function)
        try:
            value, error = self._wait(deadline_s)
        except KeyboardInterrupt:
            self._outlast(deadline_s)
            raise
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]  # what the function returned

    def close(self) -> None:
        """End the thread, if it can be."""
        self._calls.put(None)

    def _wait(self, deadline_s: float) -> tuple[Any, BaseException | None]:
        try:
            return self._results.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            self.is_hung = True
            mark_abandoned(self._thread)
            raise Hang(f"no answer within {self.limit_s:g} s") from None

    def _outlast(self, deadline_s: float) -> None:
        """Let an interrupted call come to its end: its caches are about to be replaced."""
        try:
            self._wait(deadline_s)
        except Hang:
            return  # ``is_hung`` tells

    def _run(self) -> None:
        while (function := self._calls.get()) is not None:
            try:
                result: tuple[Any, BaseException | None] = (function(), None)
            except BaseException as error:  # noqa: BLE001 - raised where it was called from
                result = (None, error)
            self._results.put(result)
            del function, result  # or they keep old caches alive until the next step


class StepGuard:
    """Calls functions one at a time, in the thread of a Watchdog if there is a limit."""

    def __init__(self, limit_s: float | None) -> None:
        self.limit_s = limit_s
        self._watchdog = None if limit_s is None else Watchdog(limit_s)

    def call(self, function: Callable[[], T]) -> T:
        """What ``function`` returns or raises; raises Hang if it does neither within the limit."""
        return function() if self._watchdog is None else self._watchdog.call(function)

    @property
    def is_hung(self) -> bool:
        """A call has not come back."""
        return self._watchdog is not None and self._watchdog.is_hung

    def close(self) -> None:
        """End the thread, if there is one and it can be ended."""
        if self._watchdog is not None:
            self._watchdog.close()
