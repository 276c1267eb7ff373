"""Responses that a server ends when its time to stop is up: streamed, and in the background."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import pytest
from served_process import ON_FAKE, ServedProcess, plugins_file
from tiny_serving import app_over, http_client, open_client, until_idle

pytestmark = pytest.mark.anyio


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
@pytest.mark.parametrize("background", [False, True])
def test_a_streamed_response_is_ended_in_its_own_form(tiny_folder, tmp_path, background):
    plugins = plugins_file(tmp_path, latency_s=0.02)
    flags = ("--plugins-file", plugins, *ON_FAKE, "--shutdown-timeout-s", 0.2)
    body = {"input": "Hi", "stream": True, "background": background, "ignore_eos": True}
    with ServedProcess(tiny_folder, *flags) as server, server.client() as client:
        with client.stream("POST", "/v1/responses", json={**body, "max_output_tokens": 900}) as got:
            assert got.status_code == 200
            lines = (line for line in got.iter_lines() if line.startswith("data: "))
            events = [json.loads(next(lines).removeprefix("data: "))]
            server.send(signal.SIGTERM)
            events += [json.loads(line.removeprefix("data: ")) for line in lines]
        server.ends_with(0)
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    # The stream ends at the same moment as the response, so that it is told of the server's end.
    assert events[-1]["type"] == "error"
    assert events[-1]["code"] == "shutting_down"


async def test_a_response_in_the_background_is_ended(loaded, anyio_backend):
    client = await open_client(loaded)
    app = app_over(client)
    server = app.state.octavo
    body = {"input": "Hi", "background": True, "ignore_eos": True, "max_output_tokens": 900}
    try:
        async with http_client(app) as http:
            made = (await http.post("/v1/responses", json=body)).json()
            assert server.num_requests_in_flight == 1
            await asyncio.sleep(0)
            server.is_draining = True
            server.running_requests.end_all()
            await until_idle(loaded)
            ended = (await http.get(f"/v1/responses/{made['id']}")).json()
        assert ended["status"] == "failed"
        assert "shutting down" in ended["error"]["message"]
        assert server.num_requests_in_flight == 0
    finally:
        await client.close()
