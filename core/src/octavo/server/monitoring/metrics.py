"""The server's figures, as Prometheus reads them at /metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from octavo.server.monitoring.engine_metrics import EngineCollector
from octavo.server.monitoring.request_metrics import RequestCollector, RequestFigures, RequestTimer

if TYPE_CHECKING:
    from octavo.server.served_model import ServedModel

__all__ = ["PREFIX", "Metrics", "RequestFigures", "RequestTimer"]

PREFIX = "octavo:"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OPENMETRICS = "application/openmetrics-text"


class Metrics:
    """All figures of one server, in a registry of its own. Belongs to the server's event loop."""

    def __init__(
        self, models: Sequence[ServedModel], num_in_flight: Callable[[], int] = lambda: 0
    ) -> None:
        """``num_in_flight`` tells how many HTTP requests are being answered."""
        self.registry = CollectorRegistry()
        self._figures = {model.name: RequestFigures() for model in models}
        self._http = _HttpCollector(num_in_flight)
        for collector in (
            EngineCollector(PREFIX, models),
            RequestCollector(PREFIX, self._figures),
            self._http,
        ):
            self.registry.register(collector)
        ProcessCollector(registry=self.registry)

    def of(self, model: ServedModel) -> RequestFigures:
        """Where the requests to a model are noted: ``of(model).timer()`` follows one."""
        return self._figures[model.name]

    def note_http(self, route: str | None, method: str, status: int) -> None:
        """Count an HTTP answer; ``route`` is the path as the route declares it, None: no route."""
        self._http.note(route, method, status)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """(the text, its content type): Prometheus', or OpenMetrics if ``accept`` names it."""
        if _OPENMETRICS not in accept.lower():
            return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4
        # Every name here is one of the plain kind. Yet with its own choice of escaping the library
        # writes the colon of a sample's name, though not of its family's, as an underscore.
        text: bytes = openmetrics.generate_latest(  # type: ignore[no-untyped-call]
            self.registry, escaping=openmetrics.ALLOWUTF8
        )
        return text, openmetrics.CONTENT_TYPE_LATEST


class _HttpCollector(Collector):
    """Counts HTTP answers. Names come from routes and not from clients, so they are few."""

    def __init__(self, num_in_flight: Callable[[], int]) -> None:
        self._num_in_flight = num_in_flight
        self._num_answers: Counter[tuple[str, str, str]] = Counter()
        self._num_errors: Counter[str] = Counter()

    def note(self, route: str | None, method: str, status: int) -> None:
        known_method = method if method in _METHODS else "other"
        self._num_answers[route or "none", known_method, str(status)] += 1
        if status >= 400:
            self._num_errors[str(status)] += 1

    def collect(self) -> Iterator[Metric]:
        answers = CounterMetricFamily(
            f"{PREFIX}http_requests",
            "HTTP answers by route, method and status; route is none where there is none.",
            labels=["route", "method", "status"],
        )
        for labels, count in sorted(self._num_answers.items()):
            answers.add_metric(labels, count)
        yield answers
        errors = CounterMetricFamily(
            f"{PREFIX}request_errors",
            "HTTP answers with a status of 400 or more.",
            labels=["status"],
        )
        for status, count in sorted(self._num_errors.items()):
            errors.add_metric([status], count)
        yield errors
        yield GaugeMetricFamily(
            f"{PREFIX}http_requests_in_flight",
            "POST requests that are being answered now.",
            value=self._num_in_flight(),
        )
