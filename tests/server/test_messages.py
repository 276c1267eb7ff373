"""/v1/messages as Anthropic's client meets it, over a tiny model that computes."""

from __future__ import annotations

import json

import anthropic
import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_values import any_json
from sdk_events import check_anthropic_event, check_message, read_events
from tiny_serving import RunningServer, assert_idle, load_tiny

from octavo.parsing import ParserRegistry

HELLO = [{"role": "user", "content": "Hello"}]
GREEDY = {"model": "tiny", "max_tokens": 12, "messages": HELLO, "temperature": 0}
LONG = {"type": "json_schema", "schema": {"type": "string", "minLength": 5000}}


@pytest.fixture(scope="module")
def server(tiny_folder):
    hermes = ParserRegistry().tool_call_format("hermes")
    with RunningServer(load_tiny(tiny_folder), tool_calls=hermes) as running:
        yield running


@pytest.fixture
def client(server):
    with anthropic.Anthropic(
        base_url=server.base_url, api_key="none", max_retries=0, timeout=30
    ) as opened:
        yield opened
    assert_idle(server.loaded)


@pytest.fixture
def plain(server):
    """Without a library between."""
    with httpx.Client(base_url=server.base_url, timeout=30) as opened:
        yield opened
    assert_idle(server.loaded)


def chat_completion(plain, messages, **body):
    answer = plain.post(
        "/v1/chat/completions", json={"model": "tiny", "messages": messages, **body}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_whole_streamed_and_chat_completions_give_the_same_text(plain):
    whole = plain.post("/v1/messages", json=GREEDY)
    assert whole.headers["request-id"]
    message = whole.json()
    check_message(message)
    answer = plain.post("/v1/messages", json={**GREEDY, "stream": True})
    events = read_events(answer.text)
    for event in events:
        check_anthropic_event(event)
    deltas = [e["delta"]["text"] for e in events if e["type"] == "content_block_delta"]
    chat = chat_completion(plain, HELLO, max_tokens=12, temperature=0)
    [block] = message["content"]
    assert block["text"] == "".join(deltas) == chat["choices"][0]["message"]["content"]
    assert message["stop_reason"] == "max_tokens"
    usage = message["usage"]
    assert usage["output_tokens"] == 12
    num_prompt_tokens = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert num_prompt_tokens == chat["usage"]["prompt_tokens"]
    kinds = [event["type"] for event in events]
    assert kinds == [
        *("message_start", "ping", "content_block_start"),
        *["content_block_delta"] * len(deltas),
        *("content_block_stop", "message_delta", "message_stop"),
    ]


def test_the_clients_own_stream_helper_adds_up_what_it_reads(client):
    with client.messages.stream(model="tiny", max_tokens=12, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].text == text
    assert final.stop_reason == "max_tokens"
    assert final.usage.output_tokens == 12


def test_system_and_blocks_make_the_prompt_that_chat_completions_make(client, plain):
    counted = client.messages.count_tokens(
        model="tiny",
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "One?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Two."}]},
            {"role": "user", "content": "Three?"},
        ],
    )
    chat = chat_completion(
        plain,
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "Two."},
            {"role": "user", "content": "Three?"},
        ],
        max_tokens=1,
    )
    assert counted.input_tokens == chat["usage"]["prompt_tokens"]


def test_an_answer_goes_on_from_the_assistants_last_words(plain):
    messages = [*HELLO, {"role": "assistant", "content": "Well"}]
    message = plain.post("/v1/messages", json={**GREEDY, "messages": messages}).json()
    chat = chat_completion(
        plain,
        messages,
        max_tokens=12,
        temperature=0,
        add_generation_prompt=False,
        continue_final_message=True,
    )
    assert message["content"][0]["text"] == chat["choices"][0]["message"]["content"]


def test_stop_sequences_end_the_answer_and_are_named(client, plain):
    text = plain.post("/v1/messages", json=GREEDY).json()["content"][0]["text"]
    stop = text[3:5]
    for stream in (False, True):
        answer = plain.post(
            "/v1/messages", json={**GREEDY, "stop_sequences": ["zzz", stop], "stream": stream}
        )
        if stream:
            [end] = [e for e in read_events(answer.text) if e["type"] == "message_delta"]
            ended = end["delta"]
        else:
            ended = answer.json()
            assert ended["content"][0]["text"] == text[: text.index(stop)]
        assert (ended["stop_reason"], ended["stop_sequence"]) == ("stop_sequence", stop)


def test_a_schema_holds_the_text_and_the_turn_ends(client):
    message = client.messages.create(
        model="tiny",
        max_tokens=200,
        messages=HELLO,
        output_config={"format": {"type": "json_schema", "schema": {"enum": [True]}}},
    )
    assert json.loads(message.content[0].text) is True
    assert message.stop_reason == "end_turn"


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "add"}])
def test_a_call_that_is_demanded_is_made_whatever_the_model_would_write(client, choice):
    schema = {
        "type": "object",
        "properties": {"a": {"enum": [1, 2, 3]}, "kind": {"enum": ["x", "y"]}},
        "required": ["a", "kind"],
        "additionalProperties": False,
    }
    message = client.messages.create(
        model="tiny",
        max_tokens=400,
        messages=HELLO,
        tools=[{"name": name, "input_schema": schema} for name in ("add", "sub")],
        tool_choice={**choice, "disable_parallel_tool_use": True},
    )
    check_message(message.to_dict())
    assert message.stop_reason == "tool_use"
    [call] = [block for block in message.content if block.type == "tool_use"]
    jsonschema.validate(call.input, schema)


def test_who_leaves_a_stream_ends_it(client, server):
    with client.messages.create(
        model="tiny",
        max_tokens=900,
        messages=HELLO,
        output_config={"format": LONG},
        stream=True,
    ) as stream:
        assert next(iter(stream)).type == "message_start"
        assert server.loaded.engine.has_unfinished_requests
    assert_idle(server.loaded)


def test_who_leaves_a_whole_message_ends_it(plain, server):
    body = {**GREEDY, "max_tokens": 900, "output_config": {"format": LONG}}
    with pytest.raises(httpx.ReadTimeout):
        plain.post("/v1/messages", json=body, timeout=0.05)
    assert_idle(server.loaded)


def user(*blocks):
    return {"messages": [{"role": "user", "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"max_tokens": None}, 400, "max_tokens"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"messages": []}, 400, "messages"),
        ({"model": "none"}, 404, "none"),
        ({"temprature": 1}, 400, "temprature"),
        ({"temperature": 3}, 400, "temperature"),
        ({"mcp_servers": []}, 400, "mcp_servers"),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096}}, 400, "budget_tokens"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, 400, "tools[0].type"),
        ({"tool_choice": {"type": "any"}}, 400, "tool_choice"),
        (
            {
                "tools": [{"name": "f", "input_schema": {"type": "object"}}],
                "tool_choice": {"type": "tool", "name": "g"},
            },
            400,
            "'g'",
        ),
        (user({"type": "image", "source": {}}), 400, "messages[0].content[0].type"),
        (user({"type": "document"}), 400, "text only"),
        (user({"type": "thinking", "thinking": "", "signature": ""}), 400, "assistant"),
        (user({"type": "tool_result", "tool_use_id": "toolu_1"}), 400, "toolu_1"),
        (
            {
                "messages": [
                    *HELLO,
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}],
                    },
                ]
            },
            400,
            "tool_result",
        ),
        ({"messages": [{"role": "user", "content": "word " * 2000}]}, 400, "max_model_len"),
    ],
)
def test_what_cannot_be_done_is_refused_in_anthropics_words(plain, body, status, word):
    kinds = {400: "invalid_request_error", 404: "not_found_error"}
    for stream in (False, True):
        sent = {"model": "tiny", "max_tokens": 9, "messages": HELLO, **body, "stream": stream}
        answer = plain.post("/v1/messages", json=sent)
        assert answer.status_code == status, answer.text
        told = answer.json()
        assert (told["type"], told["error"]["type"]) == ("error", kinds[status])
        assert word in told["error"]["message"]


def test_the_client_raises_its_own_errors(client):
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="none", max_tokens=3, messages=HELLO)
    with pytest.raises(anthropic.BadRequestError, match="Unrecognized") as caught:
        client.messages.create(
            model="tiny", max_tokens=3, messages=HELLO, extra_body={"container": "c"}
        )
    assert caught.value.request_id


KINDS = ["text", "thinking", "tool_use", "tool_result", "image"]
NAMES = [
    *("type", "role", "content", "text", "id", "input", "name", "tool_use_id", "is_error"),
    *("thinking", "signature", "input_schema", "format", "schema", "budget_tokens", "effort"),
]
FIELDS = [
    *("messages", "system", "tools", "tool_choice", "thinking", "output_config", "metadata"),
    *("temperature", "top_p", "top_k", "stream", "stop_sequences", "service_tier", "speed"),
]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.dictionaries(st.sampled_from(FIELDS), any_json(NAMES), max_size=4),
    block=st.dictionaries(st.sampled_from(NAMES), any_json(NAMES), max_size=4),
    kind=st.sampled_from(KINDS),
    role=st.sampled_from(["user", "assistant", "system"]),
)
def test_no_body_however_odd_is_a_fault_of_the_server(plain, body, block, kind, role):
    odd = [{"role": role, "content": [{"type": kind, **block}]}]
    for messages in (HELLO, HELLO + odd):
        sent = {"messages": messages, "max_tokens": 2, "model": "tiny", **body}
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            answer = plain.post(
                path, content=json.dumps(sent), headers={"content-type": "application/json"}
            )
            assert answer.status_code < 500, (sent, answer.text)
