"""A server's life: bind, load, listen, serve, drain, release."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvicorn

from octavo.server.app import create_app
from octavo.server.lifecycle.http_protocol import protocol_with_head_timeout
from octavo.server.lifecycle.listening import bind, cannot_listen, tls_context, url_of
from octavo.server.lifecycle.model_loading import close_models, load_models
from octavo.server.lifecycle.stopping import StopSignals
from octavo.server.state import Server

if TYPE_CHECKING:
    from octavo.server.config import ServerConfig
    from octavo.server.lifecycle.deployment import Deployment
    from octavo.server.monitoring.tracing import Tracing
    from octavo.server.served_model import ServedModels

__all__ = ["run_server"]

logger = logging.getLogger("octavo.server")

EXIT_INTERRUPTED = 130
_EXIT_FAILURE = 1
_CLOSING_TIMEOUT_S = 5.0  # for the step under way
_URGENT_CLOSING_TIMEOUT_S = 1.0
_ENDING_TIMEOUT_S = 2  # for connections whose requests have been ended


def run_server(deployment: Deployment) -> int:
    """Serve until SIGINT or SIGTERM; 0 after a complete drain, 130 if it was cut short.

    Raises OctavoError for what keeps the server from starting.
    """
    config = deployment.server
    _log_to_stderr()
    tls = (
        None
        if config.ssl_certfile is None
        else tls_context(config.ssl_certfile, config.ssl_keyfile)
    )
    tracing = None if config.otlp_endpoint is None else _tracing_to(config.otlp_endpoint)
    with contextlib.closing(bind(config.host, config.port)) as bound:
        opened = _Opened(bound, tls, tracing)
        loop_factory = uvicorn.Config("", log_config=None).get_loop_factory()
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(_run(deployment, opened))


@dataclass(frozen=True)
class _Opened:
    """What is had before a model is loaded, so that it cannot be missing afterwards."""

    bound: socket.socket
    tls: ssl.SSLContext | None
    tracing: Tracing | None


def _tracing_to(endpoint: str) -> Tracing:
    from octavo.server.monitoring.tracing import tracing_to  # an extra: only where it is asked for

    return tracing_to(endpoint)


async def _run(deployment: Deployment, opened: _Opened) -> int:
    with StopSignals() as stop:
        loading = asyncio.ensure_future(load_models(deployment.models))
        models = await stop.unless_asked(loading)
        if models is None:
            # A load cannot be broken off; what it holds goes with the process.
            os._exit(EXIT_INTERRUPTED)
        try:
            await _serve(deployment, models, opened, stop)
        finally:
            await _close(models, stop)
        if opened.tracing is not None and not stop.is_urgent:
            await asyncio.to_thread(opened.tracing.close)
        return EXIT_INTERRUPTED if stop.is_urgent else 0


async def _close(models: ServedModels, stop: StopSignals) -> None:
    """Release the engines; one whose step hangs is left to end with this process."""
    closing = asyncio.ensure_future(close_models(models))
    if not stop.is_urgent:
        await stop.urgent(_CLOSING_TIMEOUT_S, closing)
    await asyncio.wait({closing}, timeout=_URGENT_CLOSING_TIMEOUT_S)
    if closing.done():
        closing.result()
        return
    logger.warning("An engine does not stop: it is given up, with whatever it was doing")
    # An orderly end would wait for its threads; its own process ends when this one does.
    os._exit(EXIT_INTERRUPTED if stop.is_urgent else _EXIT_FAILURE)


async def _serve(
    deployment: Deployment,
    models: ServedModels,
    opened: _Opened,
    stop: StopSignals,
) -> None:
    config = deployment.server
    server = Server(config, models, tracing=opened.tracing)
    bound = opened.bound
    web = _WebServer(uvicorn.Config(create_app(server), **_uvicorn_options(config)))
    web.config.load()
    web.config.ssl = opened.tls
    try:
        bound.listen(web.config.backlog)
    except OSError as error:
        cannot_listen(config.host, config.port, error)
    serving = asyncio.ensure_future(web.serve(sockets=[bound]))
    try:
        await web.wait_until_started(serving)
        url = url_of(bound, config.host, is_tls=config.ssl_certfile is not None)
        names = ", ".join(model.name for model in models)
        logger.info("Octavo serves %s at %s (docs at %s/docs)", names, url, config.root_path)
        await stop.asked(serving)
        await _drain(server, web, stop)
    finally:
        web.should_exit = True
        await serving


async def _drain(server: Server, web: _WebServer, stop: StopSignals) -> None:
    """Let requests end, take no new ones, and end what is left when the time is up."""
    server.is_draining = True
    web.stop_listening()
    timeout_s = server.config.shutdown_timeout_s
    if server.num_requests_in_flight and not stop.is_urgent:
        logger.info(
            "Shutting down: %d requests have up to %g s to end (again Ctrl-C: at once)",
            *(server.num_requests_in_flight, timeout_s),
        )
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    while server.num_requests_in_flight and not stop.is_urgent:
        remaining_s = deadline_s - asyncio.get_running_loop().time()
        if remaining_s <= 0:
            logger.info("Ending %d requests", server.num_requests_in_flight)
            break
        await stop.urgent(min(remaining_s, 0.05))
    server.running_requests.end_all()


class _WebServer(uvicorn.Server):
    """Uvicorn, without its own idea of signals."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to StopSignals."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections."""
        await super().startup(sockets)
        self.has_started.set()

    async def wait_until_started(self, serving: asyncio.Future[None]) -> None:
        """Until connections are taken; raises what kept the server from it."""
        started: asyncio.Future[Any] = asyncio.ensure_future(self.has_started.wait())
        await asyncio.wait((started, serving), return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if serving.done():
            serving.result()

    def stop_listening(self) -> None:
        """Take no more connections; those that are open go on."""
        for listener in self.servers:
            listener.close()


def _uvicorn_options(config: ServerConfig) -> dict[str, Any]:
    return {
        "root_path": "",  # the application has it
        "log_config": None,
        "access_log": False,
        "http": protocol_with_head_timeout(config.body_timeout_s),
        "lifespan": "off",
        "ws": "none",
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": config.keep_alive_timeout_s,
        "timeout_graceful_shutdown": _ENDING_TIMEOUT_S,
    }


class _StderrHandler(logging.Handler):
    """Writes to what is standard error then, which a program around the server may change."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; one that cannot be written is lost, and nothing else."""
        with contextlib.suppress(OSError, ValueError):
            print(self.format(record), file=sys.stderr, flush=True)  # noqa: T201 - the log


def _log_to_stderr() -> None:
    """Octavo's lines as they are, with the time; of uvicorn's what is wrong."""
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    for name, level in (("octavo.server", logging.INFO), ("uvicorn", logging.WARNING)):
        log = logging.getLogger(name)
        log.setLevel(level)
        log.propagate = False
        log.handlers = [handler]
