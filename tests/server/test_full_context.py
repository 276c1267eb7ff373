"""More tokens asked for than the context holds: the answer ends with it, and says so."""

from __future__ import annotations

import pytest
from tiny_serving import app_over, http_client, load_tiny, open_client, until_idle

pytestmark = pytest.mark.anyio

CONTEXT_TOKENS = 64
MESSAGES = [{"role": "user", "content": "Hi"}]
BODIES = {
    "/v1/completions": {"prompt": "Hi", "max_tokens": 10**6, "ignore_eos": True},
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 10**6, "ignore_eos": True},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 10**6, "ignore_eos": True},
    "/v1/messages": {"model": "tiny", "messages": MESSAGES, "max_tokens": 10**6},
}


def ending(path, body):
    """(why it ended, tokens of prompt and answer)."""
    usage = body["usage"]
    if path == "/v1/messages":
        return body["stop_reason"], usage["input_tokens"] + usage["output_tokens"]
    if path == "/v1/responses":
        return body["incomplete_details"]["reason"], usage["total_tokens"]
    return body["choices"][0]["finish_reason"], usage["total_tokens"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/v1/completions", "length"),
        ("/v1/chat/completions", "length"),
        ("/v1/responses", "max_output_tokens"),
        ("/v1/messages", "model_context_window_exceeded"),
    ],
)
async def test_an_answer_ends_with_the_context(tiny_folder, path, reason):
    loaded = load_tiny(tiny_folder, max_model_len=CONTEXT_TOKENS)
    client = await open_client(loaded)
    try:
        async with http_client(app_over(client)) as http:
            answer = await http.post(path, json={**BODIES[path], "temperature": 0})
        assert answer.status_code == 200, answer.text
        assert ending(path, answer.json()) == (reason, CONTEXT_TOKENS)
        await until_idle(loaded)
    finally:
        await client.close()
