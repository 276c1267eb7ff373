"""Tool calls over HTTP: a model of noise, and yet every call that is demanded is a valid one."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest
from chat_client import ask, calls_of, joined, offer, post
from tiny_serving import RunningServer, assert_idle, load_tiny

from octavo.parsing import (
    CallShape,
    Opener,
    ParserRegistry,
    ToolCallFormat,
    ToolGrammar,
    read_value,
)
from octavo.server.served_model import ServedModel, ServedModels

FORMATS = (
    "hermes", "qwen3_coder", "llama3_json", "pythonic", "mistral", "mistral_args", "deepseek_v3",
    "deepseek_v31", "json",
)  # fmt: skip
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1, "maxLength": 5},
        "unit": {"type": "string", "enum": ["C", "F"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "note": {"type": ["string", "null"], "maxLength": 3},
        "kind": {"enum": ["x", 3, None]},
        "at": {"$ref": "#/$defs/place"},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "array", "items": {"enum": [0, 1]}, "maxItems": 2}},
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now"}},
]
NAMED = {"type": "function", "function": {"name": "weather"}}


def _read_at(reading):
    """A call such as @now{}."""
    pieces = []
    yield from reading.cursor.require("@")
    yield from reading.cursor.run(re.compile(r"\w*"), pieces.append)
    reading.call.put_name("".join(pieces))
    yield from reading.cursor.require("")
    yield from read_value(reading.cursor, reading.call.put_arguments, reading.limits.max_depth)
    reading.complete_call()


def _at_grammar(tools):
    calls = tuple(CallShape(tool.name, f"@{tool.name}", tool.parameters, "") for tool in tools)
    return ToolGrammar("", calls, "\n", "")


AT = ToolCallFormat("at", (Opener("@"),), _read_at, _at_grammar)


@pytest.fixture(scope="module")
def shared_server(tiny_folder):
    with RunningServer(load_tiny(tiny_folder)) as server:
        state = server.app.state.octavo
        engine, registry = state.models[0].engine, ParserRegistry()
        models = ServedModels(
            [
                ServedModel(names=("tiny",), engine=engine),
                ServedModel(names=("at",), engine=engine, tool_calls=AT),
                *(
                    ServedModel((name,), engine, tool_calls=registry.tool_call_format(name))
                    for name in FORMATS
                ),
            ]
        )
        offer(server, models)
        yield server


@pytest.fixture
def serving(shared_server):
    """One server for all tests, idle after each."""
    yield shared_server
    assert_idle(shared_server.loaded)


def assert_valid(calls):
    assert calls
    for name, arguments in calls:
        schema = {"weather": WEATHER, "now": {"maxProperties": 0}}[name]
        jsonschema.validate(arguments, schema)


@pytest.mark.parametrize("model", FORMATS)
def test_a_required_call_is_valid_in_every_format(client, model):
    options = {"model": model, "tools": TOOLS, "tool_choice": "required", "max_tokens": 400}
    options["parallel_tool_calls"] = False
    for seed in (1, 2):
        [choice] = ask(client, seed=seed, **options).choices
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        assert len(calls_of(choice)) == 1
        assert_valid(calls_of(choice))


@pytest.mark.parametrize("model", FORMATS)
def test_a_named_function_is_called_and_streamed_the_same(client, model):
    options = {"model": model, "tools": TOOLS, "tool_choice": NAMED, "max_tokens": 400}
    [choice] = ask(client, **options).choices
    assert [name for name, _ in calls_of(choice)] == ["weather"]
    assert_valid(calls_of(choice))
    assert choice.finish_reason == "stop", "as OpenAI has it where the function was named"
    streamed = joined(ask(client, stream=True, **options))[0]
    calls = [(c["name"], json.loads(c["arguments"])) for c in streamed["calls"].values()]
    assert calls == calls_of(choice)
    assert (streamed["content"], streamed["end"]) == ("", "stop")


def test_parallel_calls_are_all_valid(client):
    options = {"model": "hermes", "tools": TOOLS, "tool_choice": "required", "max_tokens": 900}
    answer = ask(client, n=6, **options)
    complete = [calls_of(choice) for choice in answer.choices if choice.finish_reason != "length"]
    assert any(len(calls) > 1 for calls in complete)
    for calls in complete:
        assert_valid(calls)


def test_allowed_tools_leave_the_others_out(client):
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "now"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    for seed in range(3):
        answer = ask(
            client, tools=TOOLS, tool_choice=choice, seed=seed, max_tokens=99,
            parallel_tool_calls=False,
        )  # fmt: skip
        assert calls_of(answer.choices[0]) == [("now", {})]


def test_a_call_that_is_cut_off_is_none(client):
    [choice] = ask(client, model="hermes", tools=TOOLS, tool_choice=NAMED, max_tokens=30).choices
    assert choice.finish_reason == "length"
    assert choice.message.tool_calls is None


def test_with_auto_text_is_free_and_a_call_that_begins_is_valid(client, serving):
    at_id = serving.loaded.tokenizer.token_to_id("@")
    options = {"model": "at", "tools": TOOLS, "max_tokens": 200, "logit_bias": {str(at_id): 6.0}}
    answer = ask(client, n=4, parallel_tool_calls=False, **options)
    called = [choice for choice in answer.choices if choice.finish_reason == "tool_calls"]
    assert any(choice.message.content for choice in called)
    for choice in called:
        assert_valid(calls_of(choice))
    assert called


def test_none_makes_no_call_of_what_looks_like_one(client, serving):
    at_id = serving.loaded.tokenizer.token_to_id("@")
    options = {"model": "at", "tools": TOOLS, "tool_choice": "none", "max_tokens": 20}
    [choice] = ask(client, logit_bias={str(at_id): 9.0}, **options).choices
    assert choice.message.tool_calls is None
    assert "@" in choice.message.content


def test_the_older_form_of_tools(client):
    functions = [tool["function"] for tool in TOOLS]
    options = {"functions": functions, "function_call": {"name": "weather"}, "max_tokens": 300}
    [choice] = ask(client, **options).choices
    assert choice.message.function_call.name == "weather"
    jsonschema.validate(json.loads(choice.message.function_call.arguments), WEATHER)
    assert choice.message.tool_calls is None
    chunks = ask(client, stream=True, **options)
    deltas = [part.delta.function_call for chunk in chunks for part in chunk.choices]
    text = "".join(delta.arguments for delta in deltas if delta)
    assert text == choice.message.function_call.arguments


def test_a_template_that_knows_no_tools_gets_them_in_the_system_message(serving):
    system = {"role": "system", "content": "Be brief."}
    messages = [system, {"role": "user", "content": "Hi"}]
    answer = post(serving, model="tiny", messages=messages, tools=TOOLS, return_token_ids=True)
    prompt = serving.loaded.tokenizer.decode(answer.json()["prompt_token_ids"])
    assert "Be brief.\n\nYou can call" in prompt
    assert all(f'"{tool["function"]["name"]}"' in prompt for tool in TOOLS)
    told = '{"name": "weather", "arguments": {...}}'
    assert told in prompt


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": TOOLS, "tool_choice": {**NAMED, "function": {"name": "x"}}}, "tool_choice"),
        ({"tools": [*TOOLS, TOOLS[0]]}, "tools"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type"),
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "tools[0].function.name",
        ),
        ({"tools": TOOLS, "functions": [{"name": "f"}]}, "functions"),
        (
            {
                "tools": [
                    TOOLS[0],
                    {
                        "type": "function",
                        "function": {"name": "f", "parameters": {"uniqueItems": True}},
                    },
                ],
                "tool_choice": "required",
            },
            "tools[1].function.parameters",
        ),
    ],
)
def test_tools_that_cannot_be_used_are_refused_by_name(serving, body, param):
    response = post(serving, model="hermes", **body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
