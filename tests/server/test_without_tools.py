"""Tools where calls are not read (--tool-call-parser none): refused, not answered with text."""

from __future__ import annotations

import pytest
from tiny_serving import app_over, http_client, open_client, until_idle

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "weather", "description": "Today's.", "parameters": SCHEMA}
MESSAGES = [{"role": "user", "content": "Hi"}]
BODIES = {
    "/v1/chat/completions": {
        "messages": MESSAGES,
        "max_tokens": 2,
        "tools": [{"type": "function", "function": FUNCTION}],
    },
    "/v1/responses": {
        "input": "Hi",
        "max_output_tokens": 2,
        "tools": [{"type": "function", **FUNCTION}],
    },
    "/v1/messages": {
        "model": "tiny",
        "messages": MESSAGES,
        "max_tokens": 2,
        "tools": [{"name": "weather", "input_schema": SCHEMA}],
    },
}


def chosen(path, kind):
    return {"type": {"required": "any"}.get(kind, kind)} if path == "/v1/messages" else kind


@pytest.mark.parametrize("path", BODIES)
async def test_tools_are_refused_where_calls_are_not_read(loaded, path):
    client = await open_client(loaded)
    try:
        async with http_client(app_over(client, takes_tools=False)) as http:
            for choice in ({}, *({"tool_choice": chosen(path, k)} for k in ("auto", "required"))):
                answer = await http.post(path, json={**BODIES[path], **choice})
                assert answer.status_code == 400, answer.text
                error = answer.json()["error"]
                assert "--tool-call-parser none" in error["message"]
                assert error.get("param", "tools") == "tools"
            told = await http.post(path, json={**BODIES[path], "tool_choice": chosen(path, "none")})
            assert told.status_code == 200, told.text
        async with http_client(app_over(client)) as http:  # no format is known: plain JSON
            assert (await http.post(path, json=BODIES[path])).status_code == 200
        await until_idle(loaded)
    finally:
        await client.close()
