"""The events of a response that runs in the background, for all who read them, then or later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

__all__ = ["EventLog"]


class EventLog:
    """Events in their order; an event's place is its sequence_number."""

    def __init__(self) -> None:
        self._events: list[bytes] = []
        self._has_ended = False
        self._news = asyncio.Event()

    @property
    def num_bytes(self) -> int:
        """The size of all events."""
        return sum(map(len, self._events))

    def append(self, event: bytes) -> None:
        """One more event."""
        self._events.append(event)
        self._tell()

    def end(self) -> None:
        """There will be no more."""
        self._has_ended = True
        self._tell()

    async def follow(self, starting_after: int = -1) -> AsyncIterator[bytes]:
        """The events behind that number, those to come as well."""
        place = starting_after + 1
        while True:
            while place < len(self._events):
                yield self._events[place]
                place += 1
            if self._has_ended:
                return
            await self._news.wait()

    def _tell(self) -> None:
        """Wake those who wait now; who comes later waits for the next."""
        self._news.set()
        self._news = asyncio.Event()
