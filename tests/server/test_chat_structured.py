"""response_format and structured_outputs over HTTP, also behind a model's reasoning."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest
from chat_client import ask, calls_of, joined, offer, post
from tiny_serving import RunningServer, assert_idle, load_tiny

from octavo.parsing import ReasoningFormat
from octavo.server.served_model import ServedModel, ServedModels

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "kind": {"enum": ["a", "b", 3, None]},
        "parts": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["name", "kind", "parts"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA}}
TOOLS = [{"type": "function", "function": {"name": "now"}}]


@pytest.fixture(scope="module")
def shared_server(tiny_folder):
    with RunningServer(load_tiny(tiny_folder)) as server:
        state = server.app.state.octavo
        thinking = ReasoningFormat("brackets", "(", ")")
        models = ServedModels(
            [
                state.models[0],
                ServedModel(("thinking",), state.models[0].engine, reasoning=thinking),
            ]
        )
        offer(server, models)
        yield server


@pytest.fixture
def serving(shared_server):
    """One server for all tests, idle after each."""
    yield shared_server
    assert_idle(shared_server.loaded)


@pytest.mark.parametrize("strict", [True, False])
def test_a_schema_is_enforced_and_streamed_the_same(client, strict):
    wanted = {**FORMAT, "json_schema": {**FORMAT["json_schema"], "strict": strict}}
    options = {"response_format": wanted, "max_tokens": 400}
    [choice] = ask(client, **options).choices
    assert choice.finish_reason == "stop"
    jsonschema.validate(json.loads(choice.message.content), SCHEMA)
    assert joined(ask(client, stream=True, **options))[0]["content"] == choice.message.content


def test_a_json_object_may_have_a_schema_as_llama_cpp_has_it(serving):
    wanted = {"type": "json_object", "schema": SCHEMA}
    answer = post(serving, response_format=wanted, max_tokens=400, seed=1).json()
    jsonschema.validate(json.loads(answer["choices"][0]["message"]["content"]), SCHEMA)


FORMS = [
    ({"choice": ["red", "blue"]}, r"red|blue"),
    ({"regex": r"[a-c]{3}!"}, r"[a-c]{3}!"),
    ({"grammar": 'start: "x" y\ny: "1" | "2"'}, r"x[12]"),
    ({"grammar": 'root ::= "yes" | "no"'}, r"yes|no"),
]


@pytest.mark.parametrize(("form", "pattern"), FORMS)
@pytest.mark.parametrize("model", ["tiny", "thinking"])
def test_vllm_s_forms_are_enforced(serving, form, pattern, model):
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    template += "(" if model == "thinking" else ""
    body = {"structured_outputs": form, "max_tokens": 400, "seed": 5, "chat_template": template}
    end = serving.loaded.tokenizer.token_to_id(")")
    answer = post(serving, model=model, logit_bias={str(end): 8.0}, **body).json()
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert re.fullmatch(pattern, choice["message"]["content"])


@pytest.mark.parametrize("opened_by", ["prompt", "model"])
def test_a_form_begins_where_the_reasoning_ends(client, serving, opened_by):
    tokenizer = serving.loaded.tokenizer
    bias = {str(tokenizer.token_to_id(")")): 7.0, str(tokenizer.token_to_id("(")): 7.0}
    template = "{{ messages[0].content }}" + ("(" if opened_by == "prompt" else "")
    options = {
        "model": "thinking",
        "response_format": FORMAT,
        "max_tokens": 500,
        "logit_bias": bias,
        "extra_body": {"chat_template": template},
    }
    [choice] = ask(client, **options).choices
    assert choice.finish_reason == "stop"
    jsonschema.validate(json.loads(choice.message.content), SCHEMA)
    streamed = joined(ask(client, stream=True, **options))[0]
    assert streamed["content"] == choice.message.content
    assert streamed["reasoning"] == getattr(choice.message, "reasoning_content", "")


def test_a_call_is_enforced_behind_the_reasoning(client, serving):
    end = serving.loaded.tokenizer.token_to_id(")")
    [choice] = ask(
        client,
        model="thinking",
        tools=TOOLS,
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=300,
        logit_bias={str(end): 8.0},
        extra_body={"chat_template": "{{ messages[0].content }}("},
    ).choices
    assert calls_of(choice) == [("now", {})]
    assert choice.finish_reason == "tool_calls"


def test_with_tools_and_a_form_the_answer_is_one_or_the_other(client):
    answer = ask(
        client, n=4, tools=TOOLS, response_format=FORMAT, max_tokens=400, parallel_tool_calls=False
    )
    for choice in answer.choices:
        if choice.message.tool_calls:
            assert calls_of(choice) == [("now", {})]
        elif choice.finish_reason == "stop":
            jsonschema.validate(json.loads(choice.message.content), SCHEMA)


REFUSED = [
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}},
        "response_format",
    ),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "text", "schema": {}}}, "response_format.schema"),
    ({"response_format": FORMAT, "structured_outputs": {"regex": "a"}}, "response_format"),
    ({"structured_outputs": {"regexp": "a"}}, "structured_outputs"),
    ({"structured_outputs": {"regex": "("}}, "structured_outputs"),
]


@pytest.mark.parametrize(("body", "param"), REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_a_form_that_cannot_be_is_refused_before_a_token(serving, body, param, stream):
    response = post(serving, stream=stream, **body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
