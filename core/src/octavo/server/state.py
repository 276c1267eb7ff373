"""What all handlers share: the models, the options, the figures."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from octavo.server.errors import ApiError, shutting_down
from octavo.server.lifecycle.running_requests import RunningRequests
from octavo.server.monitoring.engine_feed import EngineFeed
from octavo.server.monitoring.metrics import Metrics
from octavo.server.monitoring.request_record import current_record
from octavo.server.responses.store import ResponseStore
from octavo.server.served_model import ServedModel, ServedModels

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from octavo.server.config import ServerConfig
    from octavo.server.monitoring.tracing import Tracing

__all__ = ["Server", "server_of"]


@dataclass
class Server:
    """One running server; belongs to its event loop."""

    config: ServerConfig
    models: ServedModels
    is_draining: bool = False
    """Set on SIGTERM: what runs may end, nothing new begins."""
    started_s: float = field(default_factory=time.monotonic)
    num_requests_in_flight: int = 0
    running_requests: RunningRequests = field(default_factory=RunningRequests)
    responses: ResponseStore = field(default_factory=ResponseStore)
    tracing: Tracing | None = None
    """Where a span is written for each request; None: nowhere."""
    metrics: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.models, lambda: self.num_requests_in_flight)
        self._feeds = {model.name: EngineFeed(self, model) for model in self.models}

    def feed_of(self, model: ServedModel) -> EngineFeed:
        """What the engine of a model does, for those who watch."""
        return self._feeds[model.name]

    def model_for(self, name: str | None) -> ServedModel:
        """The model that a request names, ready to take it; raises ApiError."""
        model = self.models.find(name)
        record = current_record()
        record.model, record.figures = model.name, self.metrics.of(model)
        if self.is_draining:
            raise shutting_down()
        if model.engine.failure is not None:
            raise ApiError(
                model.engine.failure,
                status=HTTPStatus.SERVICE_UNAVAILABLE,
                code="engine_stopped",
            )
        if model.engine.is_sleeping:
            raise ApiError(
                f"The model {model.name!r} sleeps. Wake it with POST /wake_up.",
                status=HTTPStatus.SERVICE_UNAVAILABLE,
                code="engine_sleeps",
            )
        return model


def server_of(connection: HTTPConnection) -> Server:
    """The server that a request came to."""
    server: Server = connection.app.state.octavo
    return server
