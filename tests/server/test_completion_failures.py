"""What is told of a completion whose engine fails meanwhile, or gives it up."""

from __future__ import annotations

import asyncio
import json

import pytest
from fake_clients import FakeClient
from tiny_serving import app_over, http_client

from octavo.errors import BackendError
from octavo.outputs import CompletionOutput, Logprob, RequestOutput
from octavo.server.engines.client import OutputStream


class FailingClient(FakeClient):
    """Hands out one piece of text, then fails."""

    def __init__(self, failure):
        super().__init__()
        self.pieces = [
            RequestOutput("", None, [5], [CompletionOutput(0, "a", [1])], False),
            failure,
        ]

    async def submit(self, request_id, prompt, params, *, priority=0, cache_salt=None):
        return FailingStream(self.pieces, prompt)


class FailingStream(OutputStream):
    def __init__(self, pieces, prompt_token_ids):
        self.prompt_token_ids = prompt_token_ids
        self.pieces = [*pieces, None]

    async def __anext__(self):
        piece = self.pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        if piece is None:
            raise StopAsyncIteration
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


@pytest.mark.parametrize("max_tokens", [0, 4])
def test_a_request_that_is_ended_within_its_prompt_has_the_part_that_was_read(max_tokens):
    ended = RequestOutput(
        "",
        None,
        [5, 6, 7],
        [CompletionOutput(0, "", [], 0.0, [], finish_reason="abort")],
        finished=True,
        prompt_logprobs=[None, {6: Logprob(-1.5, 2)}],
    )
    client = FailingClient(ended)
    client.pieces = [ended]

    async def main():
        async with http_client(app_over(client)) as http:
            body = {"prompt": [5, 6, 7], "echo": True, "logprobs": 0, "max_tokens": max_tokens}
            return await http.post("/v1/completions", json=body)

    (choice,) = asyncio.run(main()).json()["choices"]
    assert choice["finish_reason"] == "abort"
    assert choice["logprobs"]["tokens"] == ["token_id:5", "token_id:6"]
    assert choice["logprobs"]["token_logprobs"] == [None, -1.5]
