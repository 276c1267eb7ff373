"""What the reader of a streamed completion is told when the engine fails meanwhile."""

from __future__ import annotations

import asyncio
import json

import pytest
from fake_clients import FakeClient
from tiny_serving import app_over, http_client

from octavo.errors import BackendError
from octavo.outputs import CompletionOutput, RequestOutput
from octavo.server.engine_client import OutputStream


class FailingClient(FakeClient):
    """Hands out one piece of text, then fails."""

    def __init__(self, failure):
        super().__init__()
        self.pieces = [
            RequestOutput("", None, [5], [CompletionOutput(0, "a", [1])], False),
            failure,
        ]

    async def submit(self, request_id, prompt, params, *, priority=0, cache_salt=None):
        return FailingStream(self.pieces)


class FailingStream(OutputStream):
    prompt_token_ids = [5]  # noqa: RUF012

    def __init__(self, pieces):
        self.pieces = list(pieces)

    async def __anext__(self):
        piece = self.pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self):
        pass


@pytest.mark.parametrize(
    "failure",
    [
        BackendError("the engine is gone"),
        RequestOutput("", None, [5], [], finished=True, error="NaN"),
    ],
    ids=["engine", "request"],
)
def test_a_failure_in_a_stream_is_told_in_the_stream(failure):
    client = FailingClient(failure)

    async def main():
        async with http_client(app_over(client)) as http:
            body = {"prompt": [5], "stream": True, "model": "tiny"}
            return await http.post("/v1/completions", json=body)

    response = asyncio.run(main())
    assert response.status_code == 200
    first, error, *end = response.text.split("\n\n")
    assert json.loads(first.removeprefix("data: "))["choices"][0]["text"] == "a"
    body = json.loads(error.removeprefix("data: "))["error"]
    assert (body["type"], body["code"]) == ("server_error", "engine_error")
    assert end == ["data: [DONE]", ""]
