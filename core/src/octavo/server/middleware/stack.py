"""The layers in their order, from the outermost: who is told of what, and what is refused first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware

from octavo.server.middleware.auth import Authentication
from octavo.server.middleware.body import BodyLimits
from octavo.server.middleware.in_flight import InFlight
from octavo.server.middleware.origin import ManagementGuard
from octavo.server.middleware.request_log import RequestLog
from octavo.server.middleware.root_path import RootPath

if TYPE_CHECKING:
    from fastapi import FastAPI

    from octavo.server.state import Server

__all__ = ["add_middleware"]

_READABLE_HEADERS = ("x-request-id", "request-id", "retry-after", "x-should-retry")


def add_middleware(app: FastAPI, server: Server) -> None:
    """Put the layers around an application; the last one added is the first to see a request."""
    config = server.config
    app.add_middleware(InFlight, server=server)
    app.add_middleware(
        BodyLimits, max_body_bytes=config.max_body_bytes, timeout_s=config.body_timeout_s
    )
    app.add_middleware(
        ManagementGuard,
        allowed_origins=config.allowed_origins,
        checks_host=config.is_loopback and not config.api_keys,
    )
    if config.api_keys:
        app.add_middleware(Authentication, api_keys=config.api_keys)
    if config.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.allowed_origins),
            allow_methods=["GET", "POST", "DELETE", "OPTIONS"],
            allow_headers=["*"],
            expose_headers=list(_READABLE_HEADERS),
        )
    app.add_middleware(
        RequestLog,
        metrics=server.metrics,
        log_requests=config.log_requests,
        tracing=server.tracing,
    )
    if config.root_path:
        app.add_middleware(RootPath, root_path=config.root_path)
