"""A span for each request: collected in memory, and by a collector of our own over HTTP."""

from __future__ import annotations

import http.server
import threading

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tiny_serving import http_client, open_client, until_idle

from octavo.server.app import create_app
from octavo.server.config import ServerConfig
from octavo.server.monitoring.tracing import Tracing, tracing_to
from octavo.server.served_model import ServedModel, ServedModels
from octavo.server.state import Server

pytestmark = pytest.mark.anyio

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "a secret"}], "max_tokens": 5}
TRACE_PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def served(loaded, tracing):
    client = await open_client(loaded)
    models = ServedModels([ServedModel(names=("tiny",), engine=client)])
    return client, create_app(Server(ServerConfig(), models, tracing=tracing))


async def test_a_chat_has_a_span_with_its_figures_and_not_its_words(loaded):
    exporter = InMemorySpanExporter()
    tracing = Tracing(SimpleSpanProcessor(exporter))
    client, app = await served(loaded, tracing)
    try:
        async with http_client(app) as http:
            answer = await http.post(
                "/v1/chat/completions",
                json={**CHAT, "ignore_eos": True},
                headers={"traceparent": TRACE_PARENT, "x-request-id": "mine"},
            )
            wrong = await http.post("/v1/chat/completions", json={**CHAT, "model": "other"})
            await http.get("/health")
        await until_idle(loaded)
    finally:
        await client.close()
        tracing.close()
    usage = answer.json()["usage"]
    assert wrong.status_code == 404
    chat, failed, health = exporter.get_finished_spans()
    assert chat.name == "chat tiny"
    assert f"{chat.context.trace_id:x}".zfill(32) == TRACE_PARENT.split("-")[1]
    assert f"{chat.parent.span_id:x}".zfill(16) == TRACE_PARENT.split("-")[2]
    given = dict(chat.attributes)
    assert 0 < given.pop("octavo.time_to_first_token_s") <= (chat.end_time - chat.start_time) / 1e9
    assert given == {
        "http.request.method": "POST",
        "url.path": "/v1/chat/completions",
        "http.response.status_code": 200,
        "octavo.request_id": "mine",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "octavo",
        "gen_ai.request.model": "tiny",
        "gen_ai.response.model": "tiny",
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
        "gen_ai.response.finish_reasons": ("length",),
    }
    assert failed.attributes["error.type"] == "404"
    assert failed.attributes["gen_ai.operation.name"] == "chat"
    assert health.name == "GET /health"
    assert "secret" not in "".join(span.to_json() for span in exporter.get_finished_spans())


class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def test_spans_reach_a_collector():
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    from octavo.server.monitoring.request_record import RequestRecord

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as collector:
        collector.received = []
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            tracing = tracing_to(f"http://127.0.0.1:{collector.server_address[1]}/")
            record = RequestRecord("the-id", "GET", "/version", status=200)
            tracing.write({"type": "http", "method": "GET", "headers": []}, record)
            tracing.close()
        finally:
            collector.shutdown()
            thread.join()
    ((path, body),) = collector.received
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert attributes["service.name"] == "octavo"
    assert [span.name for span in resource.scope_spans[0].spans] == ["GET"]
