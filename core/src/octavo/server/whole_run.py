"""An answer that nobody streams: its events are read here, to the last one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

__all__ = ["finish"]


class Run(Protocol):
    """A MessageRun or a ResponseRun."""

    @property
    def error(self) -> Exception | None:
        """What ended it, if it failed."""
        ...

    def events(self) -> AsyncIterator[Any]:
        """To be read to the end."""
        ...

    def close(self) -> object:
        """Abort what still runs."""
        ...


async def finish(run: Run) -> None:
    """Read all events, close the run, and raise its error if it has one."""
    try:
        async for _ in run.events():
            pass
    finally:
        run.close()
    if run.error is not None:
        raise run.error
