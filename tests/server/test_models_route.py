"""GET /v1/models: OpenAI's shape, and Anthropic's for its clients."""

from __future__ import annotations

import re

import pytest
from fake_clients import FakeClient
from tiny_serving import http_client

from octavo.server.app import create_app
from octavo.server.config import ServerConfig
from octavo.server.served_model import ServedModel, ServedModels
from octavo.server.state import Server

pytestmark = pytest.mark.anyio

ANTHROPIC = {"anthropic-version": "2023-06-01"}
CREATED_S = 1_700_000_000


@pytest.fixture
async def http(anyio_backend):
    models = [
        ServedModel(
            names=("org/large:Q4", "alias"),
            engine=FakeClient(model="/models/large.gguf", max_model_len=4096),
            created_s=CREATED_S,
        ),
        ServedModel(names=("small",), engine=FakeClient(), created_s=CREATED_S),
    ]
    async with http_client(create_app(Server(ServerConfig(), ServedModels(models)))) as client:
        yield client


def card(name, root, max_model_len):
    return {
        "id": name,
        "object": "model",
        "created": CREATED_S,
        "owned_by": "octavo",
        "root": root,
        "parent": None,
        "max_model_len": max_model_len,
    }


async def test_every_name_is_listed(http):
    response = await http.get("/v1/models")
    assert response.json() == {
        "object": "list",
        "data": [
            card("org/large:Q4", "/models/large.gguf", 4096),
            card("alias", "/models/large.gguf", 4096),
            card("small", "org/fake", 64),
        ],
    }


@pytest.mark.parametrize("path", ["org/large:Q4", "org%2Flarge%3AQ4", "alias", "small"])
async def test_a_model_is_found_by_any_of_its_names(http, path):
    listed = {model["id"]: model for model in (await http.get("/v1/models")).json()["data"]}
    response = await http.get(f"/v1/models/{path}")
    name = path.replace("%2F", "/").replace("%3A", ":")
    assert response.json() == listed[name]


@pytest.mark.parametrize("path", ["nobody", "org/", "org/large", "SMALL", "%00", "..%2Fsmall"])
async def test_other_names_are_not_found(http, path):
    response = await http.get(f"/v1/models/{path}")
    assert response.status_code == 404
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "small" in error["message"]


async def test_a_sleeping_or_failed_model_is_still_listed(http):
    server = http._transport.app.state.octavo
    server.models[0].engine.shown.is_sleeping = True
    server.models[1].engine.shown.failure = "It broke."
    assert len((await http.get("/v1/models")).json()["data"]) == 3


async def test_anthropics_clients_get_their_own_shape(http):
    response = await http.get("/v1/models", headers=ANTHROPIC)
    page = response.json()
    assert [model["id"] for model in page["data"]] == ["org/large:Q4", "alias", "small"]
    assert page["data"][0] == {
        "type": "model",
        "id": "org/large:Q4",
        "display_name": "org/large:Q4",
        "created_at": "2023-11-14T22:13:20Z",
        "lifecycle": "active",
        "max_input_tokens": 4096,
        "max_tokens": 4096,
    }
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("org/large:Q4", "small", False)
    one = await http.get("/v1/models/alias", headers=ANTHROPIC)
    assert one.json() == page["data"][1]


@pytest.mark.parametrize(
    ("query", "ids", "has_more"),
    [
        ("limit=2", ["org/large:Q4", "alias"], True),
        ("limit=2&after_id=alias", ["small"], False),
        ("limit=1&after_id=org/large:Q4", ["alias"], True),
        ("after_id=small", [], False),
        ("before_id=small", ["org/large:Q4", "alias"], False),
        ("before_id=small&limit=1", ["alias"], True),
        ("before_id=org/large:Q4", [], False),
        ("after_id=org/large:Q4&before_id=small", ["alias"], False),
        ("after_id=small&before_id=alias", [], False),
    ],
)
async def test_anthropics_list_comes_in_parts(http, query, ids, has_more):
    page = (await http.get(f"/v1/models?{query}", headers=ANTHROPIC)).json()
    assert [model["id"] for model in page["data"]] == ids
    assert page["has_more"] is has_more
    assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))


@pytest.mark.parametrize(
    ("query", "headers", "param"),
    [
        ("limit=2", {}, "limit"),
        ("before_id=x", {}, "before_id"),
        ("nonsense=1", {}, "nonsense"),
        ("limit=0", ANTHROPIC, "limit"),
        ("limit=1001", ANTHROPIC, "limit"),
        ("limit=x", ANTHROPIC, "limit"),
        ("after_id=nobody", ANTHROPIC, "after_id"),
        ("nonsense=1", ANTHROPIC, "nonsense"),
    ],
)
async def test_what_cannot_be_used_is_named(http, query, headers, param):
    response = await http.get(f"/v1/models?{query}", headers=headers)
    assert response.status_code == 400
    assert re.search(rf"\b{param}\b", response.text)
