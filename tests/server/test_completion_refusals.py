"""What /v1/completions refuses: always with a 400 that names the parameter, never with a 5xx."""

from __future__ import annotations

import asyncio
import json
import re

import hypothesis
import hypothesis.strategies as st
import pytest
from tiny_serving import app_over, http_client, load_tiny, open_client, until_idle

from octavo.server.config import ServerConfig
from octavo.server.protocol.completions import CompletionRequest

URL = "/v1/completions"
REFUSED = {
    "no prompt": ({}, "prompt", "Missing"),
    "null": ({"prompt": None}, "prompt", "null"),
    "empty text": ({"prompt": ""}, "prompt", "empty"),
    "empty list": ({"prompt": []}, "prompt", "empty list"),
    "an empty text among others": ({"prompt": ["a", ""]}, "prompt", r"prompt\[1\] is empty"),
    "an empty list among others": ({"prompt": [[1], []]}, "prompt", r"prompt\[1\] is an empty"),
    "number": ({"prompt": 5}, "prompt", "a number"),
    "object": ({"prompt": {"text": "a"}}, "prompt", "an object"),
    "text and ids": ({"prompt": ["a", 1]}, "prompt", r"prompt\[1\] is a number"),
    "ids and text": ({"prompt": [1, "a"]}, "prompt", "text at 1"),
    "ids and lists": ({"prompt": [[1], 2]}, "prompt", r"prompt\[1\] is a number"),
    "lists and text": ({"prompt": [[1], "a"]}, "prompt", r"prompt\[1\] is text"),
    "true is no token": ({"prompt": [1, True]}, "prompt", "true or false at 1"),
    "1.0 is no token": ({"prompt": [[1.0]]}, "prompt", "a number with a point"),
    "null is no token": ({"prompt": [1, None]}, "prompt", "null at 1"),
    "deeper lists": ({"prompt": [[[1]]]}, "prompt", "a list at 0"),
    "negative token": ({"prompt": [1, -1]}, "prompt", "-1, outside"),
    "token beyond the vocabulary": ({"prompt": [10**6]}, "prompt", "outside this model's"),
    "token of 20 digits": ({"prompt": [10**19]}, "prompt", "outside this model's"),
    "too many prompts": ({"prompt": ["a"] * 10_000}, "prompt", "10000 prompts"),
    "too long a prompt": ({"prompt": [5] * 2000}, "prompt", "2000 tokens"),
    "suffix": ({"prompt": "a", "suffix": "b"}, "suffix", "cannot be used"),
    "n of 0": ({"prompt": "a", "n": 0}, "n", "between 1 and 128"),
    "n too large": ({"prompt": "a", "n": 129}, "n", "between 1 and 128"),
    "huge n": ({"prompt": "a", "n": 2**70}, None, "out of range"),
    "n and greedy": ({"prompt": "a", "n": 2, "temperature": 0}, "n", "the same"),
    "best_of less than n": ({"prompt": "a", "n": 3, "best_of": 2}, "best_of", "less than n=3"),
    "best_of too large": ({"prompt": "a", "best_of": 1000}, "best_of", "between 1 and 128"),
    "best_of and stream": (
        {"prompt": "a", "best_of": 2, "stream": True},
        "best_of",
        "cannot be streamed",
    ),
    "best_of and greedy": (
        {"prompt": "a", "best_of": 2, "temperature": 0},
        "best_of",
        "the same",
    ),
    "negative max_tokens": ({"prompt": "a", "max_tokens": -1}, "max_tokens", "at least 0"),
    "max_tokens as text": ({"prompt": "a", "max_tokens": "5"}, "max_tokens", "integer"),
    "two limits": (
        {"prompt": "a", "max_tokens": 5, "max_completion_tokens": 6},
        "max_completion_tokens",
        "two names",
    ),
    "min_tokens above": (
        {"prompt": "a", "max_tokens": 5, "min_tokens": 6},
        "min_tokens",
        "more than max_tokens",
    ),
    "min_tokens of none": (
        {"prompt": "a", "max_tokens": 0, "min_tokens": 1},
        "min_tokens",
        "more than max_tokens",
    ),
    "too many logprobs": ({"prompt": "a", "logprobs": 21}, "logprobs", "max_logprobs=20"),
    "negative logprobs": ({"prompt": "a", "logprobs": -2}, "logprobs", "-2"),
    "logprobs as chat has it": ({"prompt": "a", "logprobs": True}, "logprobs", "integer"),
    "prompt_logprobs streamed": (
        {"prompt": "a", "prompt_logprobs": 1, "stream": True},
        "prompt_logprobs",
        "cannot be streamed",
    ),
    "stream_options alone": (
        {"prompt": "a", "stream_options": {"include_usage": True}},
        "stream_options",
        "only allowed when 'stream'",
    ),
    "unknown stream option": (
        {"prompt": "a", "stream": True, "stream_options": {"usage": True}},
        "stream_options.usage",
        "Unrecognized",
    ),
    "temperature": ({"prompt": "a", "temperature": 2.5}, "temperature", "2.5"),
    "top_p": ({"prompt": "a", "top_p": 0}, "top_p", "top_p"),
    "penalty": ({"prompt": "a", "presence_penalty": 3}, "presence_penalty", "3"),
    "seed": ({"prompt": "a", "seed": 2**63}, "seed", "seed"),
    "stop of the wrong kind": ({"prompt": "a", "stop": [1]}, "stop[0]", "string"),
    "65 stops": ({"prompt": "a", "stop": ["x"] * 65}, "stop", "at most 64"),
    "bias of no token": ({"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias", "token id"),
    "bias beyond": ({"prompt": "a", "logit_bias": {"99999": 1}}, "logit_bias", "99999"),
    "stop token beyond": ({"prompt": "a", "stop_token_ids": [99999]}, "stop_token_ids", "99999"),
    "no token allowed": ({"prompt": "a", "allowed_token_ids": []}, "allowed_token_ids", "empty"),
    "beam search": ({"prompt": "a", "use_beam_search": True}, "use_beam_search", "False"),
    "length_penalty": ({"prompt": "a", "length_penalty": 2}, "length_penalty", "1"),
    "schema": (
        {
            "prompt": "a",
            "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "no"}}},
        },
        "response_format",
        "Invalid type",
    ),
    "two forms": (
        {
            "prompt": "a",
            "response_format": {"type": "json_object"},
            "structured_outputs": {"regex": "a"},
        },
        "response_format",
        "only one",
    ),
    "unknown": ({"prompt": "a", "max_token": 5}, "max_token", "Did you mean 'max_tokens'"),
    "chat's": ({"prompt": "a", "messages": []}, "messages", "Unrecognized"),
    "model of the wrong kind": ({"prompt": "a", "model": 5}, "model", "string"),
}


@pytest.fixture(scope="module")
def post(tiny_folder):
    """Post a body; at the end the engine still answers, and holds nothing."""
    with asyncio.Runner() as runner:
        loaded = load_tiny(tiny_folder)
        client = runner.run(open_client(loaded))
        app = app_over(client)

        async def send(body):
            if not isinstance(body, bytes):
                body = json.dumps(body, ensure_ascii=False).encode()
            async with http_client(app) as http:
                headers = {"content-type": "application/json"}
                return await http.post(URL, content=body, headers=headers)

        yield lambda body: runner.run(send(body))
        assert runner.run(send({"prompt": "Hello"})).status_code == 200
        runner.run(until_idle(loaded))
        runner.run(client.close())


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused_by_name(post, name):
    body, param, message = REFUSED[name]
    response = post(body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert re.search(message, error["message"]), error["message"]


@pytest.mark.anyio
async def test_all_prompts_are_refused_if_one_is(http, loaded):
    body = {"prompt": [[5], [5] * 2000, [6]], "max_tokens": 900, "ignore_eos": True}
    response = await http.post(URL, json=body)
    assert response.status_code == 400
    await until_idle(loaded)
    assert loaded.engine.stats.num_generated_tokens < 900


@pytest.mark.anyio
async def test_the_servers_own_limits_count(loaded):
    client = await open_client(loaded)
    config = ServerConfig(max_choices=2, max_prompt_tokens=8)
    async with http_client(app_over(client, config)) as http:
        for body, param in [
            ({"prompt": [5] * 9}, "prompt"),
            ({"prompt": [[5], [6], [7]]}, "prompt"),
            ({"prompt": [5], "best_of": 3}, "best_of"),
            ({"prompt": [[5], [6]], "n": 2, "temperature": 1}, "n"),
            ({"prompt": [5] * 9, "truncate_prompt_tokens": 9}, "prompt"),
        ]:
            response = await http.post(URL, json=body)
            assert (response.status_code, response.json()["error"]["param"]) == (400, param)
        taken = await http.post(URL, json={"prompt": [5] * 9, "truncate_prompt_tokens": 8})
        assert taken.json()["usage"]["prompt_tokens"] == 8
    await client.close()


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "a", "temperature": NaN}',
        b'{"prompt": "a", "temperature": 1e999}',
        b'{"prompt": "a", "seed": 1' + b"0" * 5000 + b"}",
        b'{"prompt": "\xff"}',
        b'{"prompt": "a", "prompt": "b"}',
        b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'["prompt"]',
        b"",
        b"null",
    ],
    ids=range(10),
)
def test_bodies_that_are_no_plain_json_object_are_refused(post, body):
    response = post(body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


NAMES = [*CompletionRequest.model_fields, "unheard_of"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.sampled_from(["json_object", "json_schema", "text", "5", "{"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            TEXT | st.sampled_from(["type", "json", "regex", "choice", "include_usage", "5"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
PROMPTS = TEXT | st.lists(st.integers(0, 639), max_size=6) | st.lists(TEXT, max_size=3) | VALUES


@hypothesis.settings(
    max_examples=250, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(
    body=st.fixed_dictionaries(
        {"prompt": PROMPTS}, optional=dict.fromkeys(["max_tokens"], st.integers(0, 6))
    ),
    extra=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3),
)
def test_no_body_yields_a_5xx_or_harms_the_engine(post, body, extra):
    response = post({"max_tokens": 2, **extra, **body})
    assert response.status_code in (200, 400, 404), response.text
    if response.headers["content-type"] == "application/json":
        assert response.status_code == 200 or response.json()["error"]["message"]
