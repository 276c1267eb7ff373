"""What an engine does, for those who watch: one snapshot a tick, shared by all watchers."""

from __future__ import annotations

import asyncio
import time
from contextvars import Context
from http import HTTPStatus
from typing import TYPE_CHECKING

from octavo.errors import OctavoError
from octavo.server.errors import ApiError, api_error_of
from octavo.server.event_stream import sse
from octavo.server.monitoring.engine_view import encode_view

if TYPE_CHECKING:
    from octavo.engine_snapshot import EngineSnapshot
    from octavo.server.served_model import ServedModel
    from octavo.server.state import Server

__all__ = ["MAX_WATCHERS", "EngineFeed", "Watch", "engine_view"]

MAX_WATCHERS = 64
"""Of one model."""
INTERVAL_S = 0.25
_LARGEST_SHARE = 0.1  # of the time may go into encoding snapshots
_BYTES_PER_S = 1_000_000  # at most, to one watcher


async def engine_view(server: Server, model: ServedModel) -> bytes:
    """The JSON text of what the model's engine does now; raises BackendError if it has stopped."""
    return await _encoded(server, model, await model.engine.snapshot())


async def _encoded(server: Server, model: ServedModel, snapshot: EngineSnapshot) -> bytes:
    time_s = time.monotonic() - server.started_s
    return await asyncio.to_thread(encode_view, model.name, time_s, snapshot)


class EngineFeed:
    """One model's snapshots, taken only while somebody watches. Belongs to one event loop."""

    def __init__(self, server: Server, model: ServedModel) -> None:
        self._server = server
        self._model = model
        self._watches: set[Watch] = set()
        self._latest: bytes | None = None
        self._polling: asyncio.Task[None] | None = None

    def watch(self) -> Watch:
        """The events from now on; raises ApiError when too many watch. Its ``aclose`` must run."""
        if len(self._watches) >= MAX_WATCHERS:
            raise ApiError(
                f"{MAX_WATCHERS} clients watch the engine of {self._model.name!r}, as many as may.",
                status=HTTPStatus.TOO_MANY_REQUESTS,
                code="too_many_watchers",
            )
        watch = Watch(self)
        self._watches.add(watch)
        if self._latest is not None:
            watch.offer(self._latest)
        if self._polling is None:
            # Outside of the context of the request that happens to be the first.
            self._polling = asyncio.get_running_loop().create_task(self._poll(), context=Context())
        return watch

    def leave(self, watch: Watch) -> None:
        """Send nothing more to ``watch``."""
        self._watches.discard(watch)
        if not self._watches and self._polling is not None:
            self._polling.cancel()
            self._stop()

    def _stop(self) -> None:
        self._polling = None
        self._latest = None

    async def _poll(self) -> None:
        try:
            while not self._server.is_draining:
                try:
                    # Waits for the step that is under way, which costs nothing and may take long.
                    snapshot = await self._model.engine.snapshot()
                    begin_s = time.monotonic()
                    view = await _encoded(self._server, self._model, snapshot)
                except OctavoError as error:
                    self._offer(sse(api_error_of(error).body(), "error"))
                    break
                self._latest = b"data: %b\n\n" % view
                self._offer(self._latest)
                spent_s = time.monotonic() - begin_s
                await asyncio.sleep(
                    max(INTERVAL_S, spent_s / _LARGEST_SHARE, len(view) / _BYTES_PER_S)
                )
        finally:
            if self._polling is asyncio.current_task():
                self._stop()
                for watch in self._watches:
                    watch.end()

    def _offer(self, event: bytes) -> None:
        for watch in self._watches:
            watch.offer(event)


class Watch:
    """The events of one watcher, an async iterator; one that reads slowly misses some."""

    def __init__(self, feed: EngineFeed) -> None:
        self._feed = feed
        self._pending: bytes | None = None
        self._has_ended = False
        self._arrived = asyncio.Event()

    def offer(self, event: bytes) -> None:
        """Put the latest event in the place of one that has not been read."""
        self._pending = event
        self._arrived.set()

    def end(self) -> None:
        """No more events come after the one that is there."""
        self._has_ended = True
        self._arrived.set()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> bytes:
        await self._arrived.wait()
        if self._pending is None:
            raise StopAsyncIteration
        event, self._pending = self._pending, None
        if not self._has_ended:
            self._arrived.clear()
        return event

    async def aclose(self) -> None:
        """Stop watching; any number of times."""
        self._feed.leave(self)
