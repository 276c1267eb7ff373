"""The server's description of itself, as JSON and as a page."""

from __future__ import annotations

import html
from html.parser import HTMLParser

import jsonschema
import pytest

pytestmark = pytest.mark.anyio


async def test_the_description_knows_the_errors_as_they_are(http):
    document = (await http.get("/openapi.json")).json()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    schema = document["components"]["schemas"]["Error"]
    responses = document["paths"]["/tokenize"]["post"]["responses"]
    refused = await http.post("/tokenize", json={"prompt": 1})
    assert str(refused.status_code) in responses
    assert "422" not in responses
    jsonschema.validate(refused.json(), schema)


async def test_the_page_has_every_path_and_loads_nothing(http):
    document = (await http.get("/openapi.json")).json()
    answer = await http.get("/docs")
    page = html.unescape(answer.text)
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}</h2>" in page
    assert "max_completion_tokens" in page

    class Loaded(HTMLParser):
        def handle_starttag(self, tag, attributes):
            assert tag not in ("script", "img", "link", "iframe"), (tag, attributes)

    Loaded().feed(answer.text)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
