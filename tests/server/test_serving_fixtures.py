"""The fixtures themselves: both kinds of server answer, and stop."""

from __future__ import annotations

import httpx
import pytest


@pytest.mark.anyio
async def test_the_application_answers_in_process(http):
    response = await http.get("/nothing/here")
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "not_found_error"


def test_the_server_answers_behind_its_socket(serving):
    response = httpx.post(f"{serving.base_url}/v1/nothing")
    assert response.status_code == 404
