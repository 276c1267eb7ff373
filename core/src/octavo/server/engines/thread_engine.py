"""``ThreadEngine``: an engine whose step loop runs in a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from octavo.isolation import describe
from octavo.open_device import open_device
from octavo.server.engines.desk import EngineDesk
from octavo.server.engines.front import EngineFront
from octavo.server.engines.info import info_of

if TYPE_CHECKING:
    from octavo.config import EngineConfig
    from octavo.engine_loader import LoadedEngine
    from octavo.server.engines.messages import Message, Round

__all__ = ["ThreadEngine"]

T = TypeVar("T")

_LOG = logging.getLogger(__name__)


class ThreadEngine(EngineFront):
    """Shares the interpreter with the event loop: quick to reach, and each slows the other."""

    def __init__(self, loaded: LoadedEngine) -> None:
        """Serve a loaded engine; it must not be used otherwise afterwards."""
        super().__init__(info_of(loaded), loaded.engine.vocabulary, loaded.engine.stats)
        self._loaded = loaded
        self._loop: asyncio.AbstractEventLoop | None = None
        self._desk = EngineDesk(loaded.engine, self._publish)
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="octavo-engine", daemon=True)
        self._thread.start()

    @classmethod
    def load(cls, config: EngineConfig) -> ThreadEngine:
        """Load a model and serve it; takes as long as that takes. Raises OctavoError."""
        opened = open_device(config)
        from octavo.engine_loader import load_engine  # heavy: only once there is a device

        return cls(load_engine(config, opened))

    @classmethod
    def from_loaded(cls, loaded: LoadedEngine) -> ThreadEngine:
        """Serve an engine that is loaded already; it must not be used otherwise afterwards."""
        return cls(loaded)

    async def close(self) -> None:
        """End every request, release the device and the thread."""
        if self._is_closed:
            return
        self._is_closed = True
        await self.attach()
        self._desk.stop()
        try:
            await asyncio.to_thread(self._end)
        finally:
            self._lose("The engine was closed.")

    def _end(self) -> None:
        self._thread.join()
        self._loaded.close()

    async def attach(self) -> None:
        """Belong to the event loop that runs."""
        self._loop = asyncio.get_running_loop()

    def _send(self, message: Message) -> None:
        self._desk.post(message)

    def _run(self) -> None:
        try:
            self._desk.run()
        except BaseException as error:  # noqa: BLE001 - told to everybody who waits
            _LOG.exception("The engine's thread has died")
            why = f"The engine's thread has died: {describe(error)}."
            self._failure = why  # there may be no event loop yet
            self._in_event_loop(self._lose, why)

    def _publish(self, round_: Round) -> None:
        self._in_event_loop(self._receive, round_)

    def _in_event_loop(self, function: Callable[[T], None], argument: T) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has closed: nobody waits any more
                self._loop.call_soon_threadsafe(function, argument)
