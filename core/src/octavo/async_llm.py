"""``AsyncLLM``: async generators over one engine whose step loop runs in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octavo.config import EngineConfig
from octavo.engine_loop import EngineLoop
from octavo.errors import BackendError
from octavo.open_device import open_device

if TYPE_CHECKING:
    from octavo.engine_loader import LoadedEngine
    from octavo.outputs import RequestOutput
    from octavo.prompts import Prompt
    from octavo.sampling_params import SamplingParams

__all__ = ["AsyncLLM"]


@dataclass(frozen=True)
class _Subscriber:
    """Where a request's outputs go: a queue of the event loop that waits for them."""

    loop: asyncio.AbstractEventLoop
    outputs: asyncio.Queue[RequestOutput | Exception]

    def send(self, item: RequestOutput | Exception) -> None:
        """Hand over an output from the engine's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            self.loop.call_soon_threadsafe(self.outputs.put_nowait, item)


class AsyncLLM:
    """Serves many requests at once, each an ``async for output in llm.generate(prompt, params)``.

    The engine belongs to its thread: everything else reaches it through a queue of commands.
    """

    def __init__(self, model: str, device: str = "auto", **options: Any) -> None:
        """Load ``model``; options are EngineConfig's."""
        config = EngineConfig.from_options(model, {"device": device, **options})
        opened = open_device(config)
        from octavo.engine_loader import load_engine  # heavy: only once there is a device

        self._start(load_engine(config, opened))

    @classmethod
    def from_loaded(cls, loaded: LoadedEngine) -> AsyncLLM:
        """Serve an engine that is loaded already; it must not be used otherwise afterwards."""
        llm = cls.__new__(cls)
        llm._start(loaded)  # noqa: SLF001 - its own
        return llm

    def _start(self, loaded: LoadedEngine) -> None:
        self.loaded = loaded
        self._engine = loaded.engine
        self._ids = itertools.count()
        self._loop = EngineLoop(self._engine, self._deliver)
        self._subscribers: dict[str, _Subscriber] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._loop.run, name="octavo-engine", daemon=True)
        self._thread.start()

    async def generate(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        priority: int = 0,
        cache_salt: str | None = None,
    ) -> AsyncIterator[RequestOutput]:
        """Yield outputs as the request's ``output_kind`` asks.

        Closing or cancelling the generator ends the request and frees its blocks within a step.
        """
        if self._closed:
            raise BackendError("This AsyncLLM is closed; make a new one.")
        params = sampling_params or self.loaded.default_sampling_params
        request_id = request_id or f"request-{next(self._ids)}"
        subscriber = _Subscriber(asyncio.get_running_loop(), asyncio.Queue())

        def add() -> Iterable[RequestOutput]:
            try:
                self._engine.add_request(
                    request_id, prompt, params, priority=priority, cache_salt=cache_salt
                )
            except Exception as error:  # noqa: BLE001 - belongs to the one who asked
                subscriber.send(error)
            else:
                self._subscribers[request_id] = subscriber
            return ()

        self._loop.post(add)
        finished = False
        try:
            while not finished:
                item = await subscriber.outputs.get()
                if isinstance(item, Exception):
                    finished = True
                    raise item
                finished = item.finished
                if item.error is not None:
                    raise BackendError(item.error)
                yield item
        finally:
            if not finished:
                self._loop.post(lambda: self._abort(request_id, subscriber))

    async def abort(self, request_id: str) -> None:
        """End a request; its generator yields a last output with finish_reason "abort"."""
        self._loop.post(lambda: self._engine.abort([request_id]))

    def close(self) -> None:
        """End every request and release the device."""
        if self._closed:
            return
        self._closed = True
        self._loop.stop()
        self._thread.join()
        self.loaded.close()

    def _deliver(self, outputs: list[RequestOutput]) -> None:
        for output in outputs:
            subscriber = self._subscribers.get(output.request_id)
            if subscriber is None:
                continue
            subscriber.send(output)
            if output.finished:
                del self._subscribers[output.request_id]

    def _abort(self, request_id: str, subscriber: _Subscriber) -> Iterable[RequestOutput]:
        """End a request whose generator is gone, unless the id has been taken by another since."""
        if self._subscribers.get(request_id) is subscriber:
            del self._subscribers[request_id]
            self._engine.abort([request_id])
        return ()
