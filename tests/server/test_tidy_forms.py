"""JSON that a request asks for has no endless white space, whichever interface asks."""

from __future__ import annotations

import json

import pytest
import regex
from scripted_engine import ScriptedEngine
from tiny_serving import app_over, http_client

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
CHAT_FORMS = (
    {"type": "json_object"},
    {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
)
OWN_FORM = {"type": "json_schema", "name": "a", "schema": SCHEMA}
MESSAGES = [{"role": "user", "content": "Hi"}]
ASKED = [
    *(("/v1/completions", {"prompt": "Hi", "response_format": form}) for form in CHAT_FORMS),
    *(
        ("/v1/chat/completions", {"messages": MESSAGES, "response_format": form})
        for form in CHAT_FORMS
    ),
    ("/v1/responses", {"input": "Hi", "text": {"format": {"type": "json_object"}}}),
    ("/v1/responses", {"input": "Hi", "text": {"format": OWN_FORM}}),
    (
        "/v1/messages",
        {
            "model": "tiny",
            "max_tokens": 9,
            "messages": MESSAGES,
            "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        },
    ),
]


class IdsEngine(ScriptedEngine):
    async def submit(self, request_id, prompt, params, **options):
        prompt = {"prompt_token_ids": prompt} if isinstance(prompt, list) else prompt
        return await super().submit(request_id, prompt, params, **options)


@pytest.mark.parametrize(("path", "body"), ASKED)
async def test_white_space_between_the_parts_of_json_has_an_end(tiny_folder, path, body):
    engine = IdsEngine(tiny_folder, "1")
    async with http_client(app_over(engine)) as http:
        answer = await http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    space = engine.params[0].structured_outputs.whitespace_pattern
    for taken in json.dumps({"a": [1]}, indent=4).replace('"a"', "").split("["):
        assert regex.fullmatch(space, taken[: len(taken) - len(taken.lstrip())]) is not None
    for endless in (" " * 40, "\n\n", "\n" + " " * 40, "\t\t"):
        assert regex.fullmatch(space, endless) is None
