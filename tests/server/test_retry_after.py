"""Refusals that pass with time say when to come back, and are counted."""

from __future__ import annotations

import pytest
from fake_clients import FakeClient
from metric_samples import Exposition
from tiny_serving import app_over, http_client

from octavo.errors import BackendError, QueueFullError

pytestmark = pytest.mark.anyio

MESSAGES = [{"role": "user", "content": "Hi"}]
BODIES = {
    "/v1/completions": {"prompt": [1, 2]},
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {"model": "tiny", "max_tokens": 2, "messages": MESSAGES},
}


class RefusingClient(FakeClient):
    def __init__(self, error):
        super().__init__()
        self.error = error

    async def submit(self, request_id, prompt, params, **options):
        raise self.error


async def answers_of(engine, path, body, change=lambda server: None):
    """The answer to a request, and the numbers of errors that /metrics has by status."""
    app = app_over(engine)
    change(app.state.octavo)
    async with http_client(app) as http:
        answer = await (http.post(path, json=body) if body is not None else http.get(path))
        shown = Exposition((await http.get("/metrics")).text)
    return answer, shown.by_label("octavo:request_errors_total", "status")


def assert_says_when(answer, counted, status):
    assert answer.status_code == status, answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert counted == {str(status): 1}


@pytest.mark.parametrize(
    ("error", "status"), [(QueueFullError("1 request waits."), 429), (BackendError("Lost."), 503)]
)
async def test_what_the_engine_refuses(error, status):
    engine = RefusingClient(error)
    assert_says_when(
        *await answers_of(engine, "/v1/completions", BODIES["/v1/completions"]), status
    )


@pytest.mark.parametrize("state", ["failed", "sleeps", "drains"])
@pytest.mark.parametrize("path", [*BODIES, "/ready"])
async def test_what_a_server_refuses_that_takes_no_requests(path, state):
    engine = FakeClient()
    engine.shown.failure = "The device fell off." if state == "failed" else None
    engine.shown.is_sleeping = state == "sleeps"

    def drain(server):
        server.is_draining = state == "drains"

    assert_says_when(*await answers_of(engine, path, BODIES.get(path), drain), 503)
