"""Servers over a tiny model: within this event loop, or behind a socket in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time

import httpx
import uvicorn

from octavo.config import EngineConfig
from octavo.engine_loader import load_engine
from octavo.open_device import open_device
from octavo.server.app import create_app
from octavo.server.config import ServerConfig
from octavo.server.engines.thread_engine import ThreadEngine
from octavo.server.served_model import ServedModel, ServedModels
from octavo.server.state import Server

MODEL_NAME = "tiny"
_DEADLINE_S = 30


def tiny_options(**options):
    """NumPy, float32, and random weights that are the same each time."""
    return {
        "device": "cpu",
        "backend": "numpy",
        "load_format": "dummy",
        "dtype": "float32",
        "max_model_len": 1024,
        "kv_cache_memory_bytes": 1 << 25,
        "quiet": True,
        **options,
    }


def load_tiny(folder, **options):
    """A LoadedEngine with ``tiny_options`` and ``options`` on top."""
    config = EngineConfig.from_options(str(folder), tiny_options(**options))
    return load_engine(config, open_device(config))


async def open_client(loaded):
    """An EngineClient of this event loop, which closes ``loaded`` with itself."""
    return ThreadEngine(loaded)


def app_over(client, config=None, **model_options):
    """The application over one model, called "tiny", or as ``names`` says."""
    model = ServedModel(**{"names": (MODEL_NAME,), "engine": client, **model_options})
    return create_app(Server(config or ServerConfig(), ServedModels([model])))


def assert_idle(loaded):
    """Soon nothing runs and no block is held, and the scheduler's books are in order."""
    end_s = time.monotonic() + _DEADLINE_S
    while loaded.engine.has_unfinished_requests and time.monotonic() < end_s:
        time.sleep(0.005)
    # The engine's thread may still be giving back the blocks of the last one.
    while (fault := _fault_of_idle(loaded)) and time.monotonic() < end_s:
        time.sleep(0.005)
    if fault:
        raise fault


def _fault_of_idle(loaded):
    """What is not as it is when nothing runs, if anything."""
    scheduler = loaded.engine.scheduler
    try:
        assert loaded.engine.num_unfinished_requests == 0
        stats = scheduler.stats
        assert (stats.num_waiting, stats.num_running, stats.num_swapped) == (0, 0, 0)
        assert [group.num_used for group in stats.groups] == [0] * len(stats.groups)
        scheduler.check_integrity()
    except AssertionError as fault:
        return fault
    return None


async def until_idle(loaded):
    """``assert_idle`` for an engine that needs this event loop to come to rest."""
    end_s = time.monotonic() + _DEADLINE_S
    while loaded.engine.has_unfinished_requests and time.monotonic() < end_s:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    assert_idle(loaded)


@contextlib.asynccontextmanager
async def http_client(app, **options):
    """A client that calls ``app`` within this event loop; an exception of the app is raised."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", timeout=_DEADLINE_S, **options
    ) as client:
        yield client


class RunningServer:
    """uvicorn in a thread of its own, on a port of 127.0.0.1 that is free."""

    def __init__(self, loaded, config=None, **model_options):
        self.loaded = loaded
        self.app = None
        self._config = config
        self._model_options = model_options
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._uvicorn = None
        self._error = None
        self._thread = threading.Thread(target=self._run, name="tiny-server")

    @property
    def base_url(self):
        """Without a slash at its end, and without /v1."""
        host, port = self._socket.getsockname()
        return f"http://{host}:{port}"

    def __enter__(self):
        self._thread.start()
        end_s = time.monotonic() + _DEADLINE_S
        while not (self._uvicorn and self._uvicorn.started):
            if self._error is not None:
                raise self._error
            assert time.monotonic() < end_s, "the server did not start"
            time.sleep(0.002)
        return self

    def __exit__(self, *exception):
        self._uvicorn.should_exit = True
        self._thread.join(_DEADLINE_S)
        assert not self._thread.is_alive(), "the server did not stop"
        if self._error is not None:
            raise self._error

    def _run(self):
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error

    async def _serve(self):
        client = await open_client(self.loaded)
        try:
            self.app = app_over(client, self._config, **self._model_options)
            self._uvicorn = uvicorn.Server(
                uvicorn.Config(self.app, log_level="warning", lifespan="off", ws="none")
            )
            with self._socket:
                await self._uvicorn.serve([self._socket])
            await until_idle(self.loaded)
        finally:
            await client.close()
