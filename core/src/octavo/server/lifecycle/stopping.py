"""SIGINT and SIGTERM: the first asks a server to end in peace, the second at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

__all__ = ["StopSignals"]

Result = TypeVar("Result")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_EXIT_AT_ONCE = 130


class StopSignals:
    """Counts the signals while it is entered; used in the main thread, within an event loop."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._urgent = asyncio.Event()
        self._earlier: dict[int, Any] = {}
        self._count = 0

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()

        def note(signum: int, frame: FrameType | None) -> None:
            del signum, frame
            self._count += 1
            if self._count > 2:  # nothing else has helped
                os._exit(_EXIT_AT_ONCE)
            loop.call_soon_threadsafe((self._asked, self._urgent)[self._count - 1].set)

        for number in _SIGNALS:
            self._earlier[number] = signal.signal(number, note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    @property
    def is_urgent(self) -> bool:
        """Whether there has been a second signal."""
        return self._urgent.is_set()

    async def asked(self, *others: asyncio.Future[Any]) -> None:
        """Wait for the first signal, or for one of the others to be done."""
        await _first(self._asked.wait, None, *others)

    async def urgent(self, timeout_s: float, *others: asyncio.Future[Any]) -> None:
        """Wait for the second signal or for one of the others, but not longer than that."""
        await _first(self._urgent.wait, timeout_s, *others)

    async def unless_asked(self, work: asyncio.Future[Result]) -> Result | None:
        """What ``work`` returns; None if a signal came first, and ``work`` is cancelled then."""
        await self.asked(work)
        if work.done():
            return work.result()
        work.cancel()
        await _first(self._urgent.wait, None, work)
        return None


async def _first(
    waiting: Callable[[], Any], timeout_s: float | None, *others: asyncio.Future[Any]
) -> None:
    task = asyncio.ensure_future(waiting())
    try:
        await asyncio.wait({task, *others}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
