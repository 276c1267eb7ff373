"""The layers around the application, over handlers that say what reached them."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re

import pytest
from tiny_serving import http_client

from octavo.server.app import create_app
from octavo.server.config import ServerConfig
from octavo.server.monitoring.request_record import current_record
from octavo.server.served_model import ServedModels
from octavo.server.state import Server

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}


class Probe:
    """A server without models, whose handlers echo, wait or fail."""

    def __init__(self, **options):
        self.server = Server(ServerConfig(**options), ServedModels([]))
        self.app = create_app(self.server)
        self.num_calls = 0
        self.release = asyncio.Event()
        self.entered = asyncio.Event()
        self.left = False
        for path, handler in (
            ("/v1/echo", self.echo),
            ("/v1/messages", self.echo),
            ("/v1/wait", self.wait),
            ("/v1/fail", self.fail),
            ("/sleep", self.manage),
            ("/health", self.health),
        ):
            self.app.router.routes.insert(0, _route(path, handler))

    async def echo(self, request):
        self.num_calls += 1
        return _json({"body": (await request.body()).decode(), "id": current_record().request_id})

    async def wait(self, request):
        self.entered.set()
        try:
            await self.release.wait()
        finally:
            self.left = True
        return _json({"waited": True})

    async def fail(self, request):
        raise RuntimeError("a secret of the server")

    async def manage(self, request):
        self.num_calls += 1
        return _json({})

    async def health(self, request):
        return _json({"ok": True})


def _json(value):
    from starlette.responses import JSONResponse

    return JSONResponse(value)


def _route(path, handler):
    from starlette.routing import Route

    return Route(path, handler, methods=["GET", "POST"])


async def test_a_request_keeps_its_id_or_gets_one():
    async with http_client(Probe().app) as http:
        given = await http.post("/v1/echo", headers={"X-Request-Id": "trace-1:a.b"})
        assert given.headers["x-request-id"] == given.json()["id"] == "trace-1:a.b"
        for bad in ("", "two words", "x" * 129, "n\u00f6", "a\tb", "<script>"):
            answer = await http.post("/v1/echo", headers={"X-Request-Id": bad.encode()})
            assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"]), bad
        anthropic = await http.post("/v1/messages", headers={"X-Request-Id": "mine"})
        assert anthropic.headers["request-id"] == "mine"


async def test_a_request_has_one_line_without_its_prompt_or_key(caplog):
    probe = Probe(api_keys=("sk-secret-key",))
    headers = {"x-api-key": "sk-secret-key", "X-Request-Id": "the-id"}
    with caplog.at_level(logging.INFO, "octavo.server.requests"):
        async with http_client(probe.app) as http:
            await http.post("/v1/echo?key=sk-query", json={"prompt": "classified"}, headers=headers)
            await http.get("/a%0aFAKE%20LINE\u2028x", headers=headers)
    lines = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"POST /v1/echo 200 total=\d+\.\d{3}s id=the-id", lines[0])
    assert lines[1].startswith("GET /a?FAKE?LINE?x 404 ")
    assert len(lines) == 2
    assert not re.search("secret|classified|sk-", "".join(lines))


async def test_the_log_can_be_silent(caplog):
    with caplog.at_level(logging.INFO, "octavo.server.requests"):
        async with http_client(Probe(log_requests=False).app) as http:
            await http.get("/health")
    assert caplog.records == []


async def test_what_fails_in_a_handler_is_logged_and_not_told(caplog):
    async with http_client(Probe().app) as http:
        answer = await http.post("/v1/fail", headers={"X-Request-Id": "failing"})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "failing" in answer.json()["error"]["message"]
    assert "secret" not in answer.text
    assert any("a secret of the server" in str(record.exc_info) for record in caplog.records)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer one"}, 200),
        ({"authorization": "bearer   two"}, 200),
        ({"x-api-key": "two"}, 200),
        ({"Authorization": "Bearer wrong", "x-api-key": "one"}, 200),
        ({"Authorization": "Bearer on"}, 401),
        ({"Authorization": "Bearer onee"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Basic one"}, 401),
        ({"Authorization": "one"}, 401),
        ({"x-api-key": "one two"}, 401),
        ({"x-api-key": b"\xff\xfe"}, 401),
    ],
)
async def test_a_key_lets_in(headers, status):
    probe = Probe(api_keys=("one", "two"))
    async with http_client(probe.app) as http:
        answer = await http.post("/v1/echo", headers=headers)
    assert answer.status_code == status
    assert probe.num_calls == (status == 200)
    if status == 401:
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_what_needs_no_key():
    async with http_client(Probe(api_keys=("one",)).app) as http:
        assert (await http.get("/health")).status_code == 200
        for path in ("/health/", "/Health", "/health/%2e%2e/v1/echo", "/health;x", "/v1/models"):
            assert (await http.get(path)).status_code == 401, path
        assert (await http.post("/health")).status_code == 401  # only looking is free


async def test_an_anthropic_client_is_told_in_its_words():
    async with http_client(Probe(api_keys=("one",)).app) as http:
        body = (await http.post("/v1/messages")).json()
    assert body["type"] == "error"
    assert body["error"]["type"] == "authentication_error"


async def test_all_keys_are_compared_whichever_fits(monkeypatch):
    import octavo.server.middleware.auth as auth

    probe = Probe(api_keys=("first", "second", "third"))
    compared = []
    real = auth.hmac.compare_digest
    monkeypatch.setattr(
        auth.hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or real(a, b)
    )
    async with http_client(probe.app) as http:
        for key in ("first", "third", "x" * 1000):
            await http.post("/v1/echo", headers={"x-api-key": key})
    assert compared == [(32, 32)] * 9


async def test_cross_origin_requests():
    origin = "https://chat.example.com"
    asking = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    asking["Access-Control-Request-Headers"] = "authorization,content-type"
    async with http_client(Probe(allowed_origins=(origin,), api_keys=("k",)).app) as http:
        asked = await http.options("/v1/echo", headers=asking)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == origin
        refused = await http.post("/v1/echo", headers={"Origin": origin})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == origin  # so that it can be read
        other = await http.options("/v1/echo", headers={**asking, "Origin": "https://evil"})
        assert "access-control-allow-origin" not in other.headers
    async with http_client(Probe().app) as http:
        closed = await http.options("/v1/echo", headers=asking)
        assert "access-control-allow-origin" not in closed.headers


@pytest.mark.parametrize(
    ("options", "headers", "status"),
    [
        ({}, {}, 200),
        ({}, {"Origin": "http://localhost"}, 200),
        ({}, {"Origin": "https://evil.example"}, 403),
        ({}, {"Origin": "null"}, 403),
        ({}, {"Sec-Fetch-Site": "cross-site"}, 403),
        ({}, {"Host": "evil.example", "Origin": "http://evil.example"}, 403),  # rebinding
        ({}, {"Host": "evil.example:8000"}, 403),
        ({}, {"Host": "127.0.0.1:8000"}, 200),
        ({}, {"Host": "[::1]:8000"}, 200),
        ({}, {"Host": "[oops"}, 403),
        ({"api_keys": ("k",)}, {"Host": "llm.example", "x-api-key": "k"}, 200),
        ({"allowed_origins": ("https://a.b",)}, {"Origin": "https://a.b"}, 200),
        ({"allowed_origins": ("*",)}, {"Origin": "https://evil.example"}, 403),
    ],
)
async def test_pages_of_others_manage_nothing(options, headers, status):
    probe = Probe(**options)
    async with http_client(probe.app) as http:
        answer = await http.post("/sleep", headers=headers)
    assert answer.status_code == status, answer.text
    assert probe.num_calls == (status == 200)


def chunks(size, count):
    async def stream():
        for _ in range(count):
            yield b"x" * size

    return stream()


async def test_a_body_that_is_too_large_is_not_read():
    probe = Probe(max_body_bytes=1000)
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 100

    async with http_client(probe.app) as http:
        exact = await http.post("/v1/echo", content=b'"' + b"x" * 998 + b'"', headers=JSON)
        assert exact.status_code == 200
        for content in (b"x" * 1001, endless(), chunks(1001, 1)):
            answer = await http.post("/v1/echo", content=content, headers=JSON)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "request_too_large"
            assert answer.headers["connection"] == "close"
        wild = await http.post("/v1/echo", headers={**JSON, "Content-Length": "9" * 30})
        assert wild.status_code == 400
    assert sent < 20
    assert probe.num_calls == 1


async def test_a_body_that_does_not_arrive():
    async def slow():
        yield b"{"
        await asyncio.sleep(60)

    probe = Probe(body_timeout_s=0.05)
    async with http_client(probe.app) as http:
        answer = await http.post("/v1/echo", content=slow(), headers=JSON)
    assert answer.status_code == 408
    assert answer.json()["error"]["code"] == "body_timeout"
    assert probe.num_calls == 0


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        (JSON, b"{}", 200),
        ({"content-type": 'application/json; charset="UTF-8"'}, b"{}", 200),
        ({}, b"", 200),
        (JSON, b"", 200),
        ({"content-type": "text/plain"}, b"{}", 415),
        ({"content-type": "application/x-www-form-urlencoded"}, b"a=b", 415),
        ({"content-type": "application/json; charset=utf-16"}, '{"a": 1}'.encode("utf-16"), 415),
        ({"content-type": "nonsense"}, b"{}", 415),
        ({}, b"{}", 415),
        ({**JSON, "content-encoding": "gzip"}, gzip.compress(b"{}", mtime=0), 415),
        ({**JSON, "content-encoding": "identity"}, b"{}", 200),
    ],
)
async def test_only_plain_json_is_taken(headers, content, status):
    probe = Probe()
    async with http_client(probe.app) as http:
        answer = await http.post("/v1/echo", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert probe.num_calls == (status == 200)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 100_000, "nested"),
        (b'[[["\\"[[[[' + b'"]]]', None),
        (b"[" * 128 + b"]" * 128, None),
        (b"[" * 129 + b"]" * 129, "nested"),
        (b'["' + b"[" * 500 + b'"]', None),  # in a string
        (b"[" + b"[]," * 500 + b"[]]", None),  # beside each other
        (b'{"a": NaN}', "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b"[1e999]", "1e999"),
        (b"[1e308]", None),
        (b"[" + b"9" * 5000 + b"]", "out of range"),
        (b"[18446744073709551615, -9223372036854775808]", None),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' occurs twice"),
        (b'["\\ud800"]', "surrogate"),
        (b'["\\udfff tail"]', "surrogate"),
        (b'{"\\uD83D": 1}', "surrogate"),
        (b'["\\ud83d\\ude00"]', None),  # a pair is a character
        (b'["\\\\ud800"]', None),  # an escaped backslash
        (b'["\xff"]', "UTF-8"),
        (b'["\xed\xa0\x80"]', "UTF-8"),
        (b"{", "line 1"),
        (b"{}{}", "Extra data"),
        (b"\xef\xbb\xbf{}", None),
        (b"\x00", "Expecting value"),
    ],
)
async def test_json_that_could_do_harm(body, reason):
    probe = Probe()
    async with http_client(probe.app) as http:
        answer = await http.post("/v1/echo", content=body, headers=JSON)
    if reason is None:
        assert answer.status_code == 200, answer.text
        return
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_json"
    assert reason in answer.json()["error"]["message"]
    assert probe.num_calls == 0


async def test_more_requests_than_allowed_are_told_to_come_again():
    probe = Probe(max_concurrent_requests=2)
    async with http_client(probe.app) as http:
        running = [asyncio.create_task(http.post("/v1/wait")) for _ in range(2)]
        while probe.server.num_requests_in_flight < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        refused = await http.post("/v1/echo")
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "too_many_requests"
        assert (await http.get("/health")).status_code == 200
        probe.release.set()
        assert [(await task).status_code for task in running] == [200, 200]
        assert (await http.post("/v1/echo")).status_code == 200
    assert probe.server.num_requests_in_flight == 0


async def test_a_request_that_takes_too_long_is_ended():
    probe = Probe(request_timeout_s=0.05)
    async with http_client(probe.app) as http:
        answer = await http.post("/v1/wait")
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "request_timeout"
    assert answer.headers["x-should-retry"] == "false"
    assert probe.left
    assert probe.server.num_requests_in_flight == 0


async def test_a_timeout_of_a_handler_is_its_own_fault(caplog):
    probe = Probe(request_timeout_s=30)

    async def late(request):
        raise TimeoutError

    probe.app.router.routes.insert(0, _route("/v1/late", late))
    async with http_client(probe.app) as http:
        assert (await http.post("/v1/late")).status_code == 500


async def test_a_server_that_drains_lets_go_on_what_runs():
    probe = Probe()
    async with http_client(probe.app) as http:
        running = asyncio.create_task(http.post("/v1/wait"))
        await probe.entered.wait()
        probe.server.is_draining = True
        refused = await http.post("/v1/echo")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "5"
        assert refused.headers["connection"] == "close"
        assert refused.json()["error"]["code"] == "shutting_down"
        probe.release.set()
        assert (await running).status_code == 200


async def test_what_runs_can_be_ended():
    probe = Probe()
    async with http_client(probe.app) as http:
        running = asyncio.create_task(http.post("/v1/wait"))
        await probe.entered.wait()
        probe.server.is_draining = True
        probe.server.running_requests.end_all()
        probe.server.running_requests.end_all()  # twice does no harm
        answer = await running
    assert answer.status_code == 503
    assert probe.left


@pytest.mark.parametrize(
    ("path", "last"),
    [
        ("/v1/chat/completions", b'data: {"error":'),
        ("/v1/completions", b'data: {"error":'),
        ("/v1/messages", b'event: error\ndata: {"type":"error","error":'),
        ("/v1/responses", b'event: error\ndata: {"type":"error","code":"request_timeout"'),
    ],
)
async def test_a_stream_that_takes_too_long_ends_with_an_error_event(path, last):
    from octavo.server.event_stream import EventStream, sse

    closed = []

    async def events():
        try:
            yield sse({"first": 1})
            yield sse({"text": '"sequence_number":99', "sequence_number": 6})
            await asyncio.sleep(60)
        finally:
            closed.append(True)

    async def stream(request):
        await request.body()
        return EventStream(events())

    probe = Probe(request_timeout_s=0.1)
    probe.app.router.routes.insert(0, _route(path, stream))
    sent = await _call(probe.app, path)
    assert sent[0]["status"] == 200
    body = b"".join(message.get("body", b"") for message in sent[1:])
    first, _, rest = body.partition(b"\n\n")
    assert first == b'data: {"first":1}'
    _, _, rest = rest.partition(b"\n\n")
    assert rest.startswith(last)
    error = json.loads(rest.split(b"data: ", 1)[1].split(b"\n\n")[0])
    assert error.get("sequence_number", 7) == 7
    assert ("sequence_number" in error) == (path == "/v1/responses")
    assert "0.1 s" in json.dumps(error)
    assert sent[-1].get("more_body", False) is False
    assert closed == [True]


async def _call(app, path):
    """What the application sends to a client that only listens."""
    sent, received = [], [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive():
        if received:
            return received.pop()
        await asyncio.sleep(60)
        return None

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode()}
    scope |= {"headers": [], "query_string": b"", "root_path": "", "scheme": "http"}
    scope |= {"server": ("localhost", 80), "client": ("127.0.0.1", 1), "http_version": "1.1"}
    await app(scope, receive, send)
    return sent


async def test_who_does_not_read_its_last_event_is_not_waited_for(monkeypatch):
    import octavo.server.middleware.in_flight as in_flight

    monkeypatch.setattr(in_flight, "_LAST_EVENT_TIMEOUT_S", 0.01)
    probe = Probe(request_timeout_s=0.05)

    async def send(message):
        await asyncio.sleep(60)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "POST", "path": "/v1/wait", "headers": []}
    scope |= {"query_string": b"", "root_path": "", "scheme": "http", "server": ("localhost", 80)}
    await asyncio.wait_for(probe.app(scope, receive, send), 10)
    assert probe.server.num_requests_in_flight == 0


async def test_paths_behind_a_proxy_keep_their_meaning():
    probe = Probe(root_path="/llm", api_keys=("k",))
    async with http_client(probe.app) as http:
        assert (await http.get("/llm/health")).status_code == 200
        assert (await http.get("/health")).status_code == 200
        assert (await http.get("/llm/v1/echo")).status_code == 401
