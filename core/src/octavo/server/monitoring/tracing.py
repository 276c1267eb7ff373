"""A span for each request, in OpenTelemetry's words for generative models; an extra.

Attributes follow the semantic conventions for ``gen_ai`` and ``http``; like the log line, a span
holds figures, never a prompt or an answer.
"""

from __future__ import annotations

import importlib.util
import time
from typing import TYPE_CHECKING, Any

from octavo import __version__
from octavo.errors import UsageError
from octavo.server.middleware.asgi import Scope, header

if TYPE_CHECKING:
    from octavo.server.monitoring.request_record import RequestRecord

__all__ = ["Tracing", "tracing_to"]

_TRACES_PATH = "/v1/traces"
_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
}


def tracing_to(endpoint: str) -> Tracing:
    """Send spans to a collector's OTLP endpoint over HTTP, such as ``http://127.0.0.1:4318``.

    Raises UsageError where the packages for it are missing.
    """
    if importlib.util.find_spec("opentelemetry") is None:
        raise _not_installed()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise _not_installed() from error
    base = endpoint.rstrip("/")
    url = base if base.endswith(_TRACES_PATH) else base + _TRACES_PATH
    return Tracing(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))


def _not_installed() -> UsageError:
    return UsageError(
        '--otlp-endpoint needs OpenTelemetry, not installed here: pip install "octavo[otel]"'
    )


class Tracing:
    """Writes a request's span when the request has ended."""

    def __init__(self, processor: Any) -> None:
        """``processor`` is a span processor of opentelemetry-sdk."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        resource = Resource.create({"service.name": "octavo", "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("octavo", __version__)

    def write(self, scope: Scope, record: RequestRecord) -> None:
        """The span of a request that has just ended, under the client's if it names one."""
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        names = ("traceparent", "tracestate")
        carrier = {name: value for name in names if (value := header(scope, name.encode()))}
        end_ns = time.time_ns()
        operation = _OPERATIONS.get(record.path)
        span = self._tracer.start_span(
            f"{operation} {record.model}" if operation and record.model else _http_name(scope),
            context=TraceContextTextMapPropagator().extract(carrier),
            kind=SpanKind.SERVER,
            start_time=end_ns - int(record.duration_s * 1e9),
            attributes=_attributes(record, operation),
        )
        if record.status is None or record.status >= 500 or record.error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_ns)

    def close(self) -> None:
        """Send what is left; takes as long as the collector does, up to the exporter's limit."""
        self._provider.shutdown()


def _http_name(scope: Scope) -> str:
    """``GET /v1/models``: of the route, so that there are few."""
    route = getattr(scope.get("route"), "path", None)
    return f"{scope['method']} {route}" if route else str(scope["method"])


def _attributes(record: RequestRecord, operation: str | None) -> dict[str, Any]:
    given = {
        "http.request.method": record.method,
        "url.path": record.path,
        "http.response.status_code": record.status,
        "octavo.request_id": record.request_id,
        "error.type": record.error or (str(record.status) if _failed(record) else None),
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": None if operation is None else "octavo",
        "gen_ai.request.model": record.model,
        "gen_ai.response.model": record.model,
        "gen_ai.usage.input_tokens": record.num_prompt_tokens,
        "gen_ai.usage.output_tokens": record.num_completion_tokens,
        "gen_ai.response.finish_reasons": list(record.finish_reasons) or None,
        "octavo.time_to_first_token_s": record.time_to_first_token_s,
    }
    return {name: value for name, value in given.items() if value is not None}


def _failed(record: RequestRecord) -> bool:
    return record.status is not None and record.status >= 400
