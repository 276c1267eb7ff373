"""/v1/responses as OpenAI's client meets it, over a tiny model that computes."""

from __future__ import annotations

import json
import time

import httpx
import jsonschema
import openai
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_values import any_json
from sdk_events import check_openai_event, check_response, read_events
from tiny_serving import RunningServer, assert_idle, load_tiny

from octavo.parsing import ParserRegistry

GREEDY = {"model": "tiny", "temperature": 0, "max_output_tokens": 12}
LONG = {"model": "tiny", "max_output_tokens": 900, "extra_body": {"ignore_eos": True}}
ENDLESS = {"model": "tiny", "input": "Go on", "max_output_tokens": 900, "ignore_eos": True}


@pytest.fixture(scope="module")
def server(tiny_folder):
    hermes = ParserRegistry().tool_call_format("hermes")
    with RunningServer(load_tiny(tiny_folder), tool_calls=hermes) as running:
        yield running


@pytest.fixture
def client(server):
    with openai.OpenAI(
        base_url=f"{server.base_url}/v1", api_key="none", max_retries=0, timeout=30
    ) as opened:
        yield opened
    assert_idle(server.loaded)


@pytest.fixture
def plain(server):
    """Without a library between."""
    with httpx.Client(base_url=f"{server.base_url}/v1", timeout=30) as opened:
        yield opened
    assert_idle(server.loaded)


def events_of(plain, **body):
    answer = plain.post("/responses", json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    events = read_events(answer.text)
    for event in events:
        check_openai_event(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def until_ended(client, response_id):
    end_s = time.monotonic() + 30
    while time.monotonic() < end_s:
        response = client.responses.retrieve(response_id)
        if response.status not in ("queued", "in_progress"):
            return response
        time.sleep(0.005)
    raise AssertionError("the response does not end")


def test_whole_streamed_and_chat_completions_give_the_same_text(client, plain):
    for extra in ({"temperature": 0}, {"temperature": 1, "seed": 7}):
        body = {"model": "tiny", "input": "Hello", "max_output_tokens": 12, **extra}
        whole = plain.post("/responses", json=body).json()
        check_response(whole)
        [item] = whole["output"]
        events = events_of(plain, **body)
        deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
        chat = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "Hello"}], max_tokens=12, **extra
        )
        assert item["content"][0]["text"] == "".join(deltas) == chat.choices[0].message.content
        usage, expected = whole["usage"], chat.usage
        assert usage["input_tokens"] == expected.prompt_tokens
        assert usage["output_tokens"] == expected.completion_tokens
        assert usage["total_tokens"] == expected.total_tokens


def test_events_come_in_openais_order_and_add_up(plain):
    events = events_of(plain, **GREEDY, input="Hello")
    kinds = [event["type"].removeprefix("response.") for event in events]
    deltas = kinds.count("output_text.delta")
    assert kinds == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *["output_text.delta"] * deltas,
        *("output_text.done", "content_part.done", "output_item.done", "incomplete"),
    ]
    done, last = events[-2]["item"], events[-1]["response"]
    assert last["output"] == [done]
    assert last["status"] == "incomplete"
    assert last["incomplete_details"] == {"reason": "max_output_tokens"}
    assert done["status"] == "incomplete"
    assert {event["item_id"] for event in events if "item_id" in event} == {done["id"]}
    assert events[0]["response"]["id"] == last["id"]
    assert events[0]["response"]["output"] == []


def test_the_clients_own_stream_helper_adds_up_what_it_reads(client):
    # It wants an end that is complete; a form gives one.
    form = {"type": "json_schema", "name": "n", "schema": {"enum": [True]}}
    with client.responses.stream(
        model="tiny", input="?", text={"format": form}, temperature=0
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[-1] == "response.completed"
    assert final.output_text.strip() == "true"
    assert final.completed_at is not None


ADD = {
    "type": "object",
    "properties": {"a": {"enum": [1, 2, 3]}, "kind": {"enum": ["x", "y"]}},
    "required": ["a", "kind"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "add"}])
def test_a_call_that_is_demanded_is_made_whatever_the_model_would_write(client, plain, choice):
    tools = [
        {"type": "function", "name": name, "parameters": ADD, "strict": True}
        for name in ("add", "sub")
    ]
    body = {"model": "tiny", "input": "?", "tools": tools, "tool_choice": choice, "seed": 3}
    body["parallel_tool_calls"] = False
    whole = plain.post("/responses", json=body).json()
    check_response(whole)
    [call] = [item for item in whole["output"] if item["type"] == "function_call"]
    jsonschema.validate(json.loads(call["arguments"]), ADD)
    assert call["name"] in (("add",) if choice != "required" else ("add", "sub"))
    assert whole["status"] == "completed"
    last = events_of(plain, **body)[-1]["response"]
    [streamed] = [item for item in last["output"] if item["type"] == "function_call"]
    assert (streamed["name"], streamed["arguments"]) == (call["name"], call["arguments"])
    found = client.responses.create(
        model="tiny",
        input=[{"type": "function_call_output", "call_id": call["call_id"], "output": "4"}],
        previous_response_id=whole["id"],
        max_output_tokens=3,
    )
    assert found.output_text


def without_space(server):
    """A bias that keeps a model of random weights from writing nothing but white space."""
    tokenizer = server.loaded.tokenizer
    return {
        str(token_id): -100
        for token_id in range(tokenizer.vocab_size)
        if tokenizer.decode([token_id]).isspace()
    }


def test_parse_gives_an_object_of_the_callers_class(client, server):
    class Paint(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        is_red: bool

    parsed = client.responses.parse(
        model="tiny",
        input="Paint?",
        text_format=Paint,
        extra_body={"logit_bias": without_space(server)},
    )
    assert isinstance(parsed.output_parsed, Paint)


def test_instructions_and_items_make_the_prompt_that_chat_completions_make(client):
    asked = client.responses.input_tokens.count(
        model="tiny",
        instructions="Be brief.",
        input=[
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "Two."}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "3?"}]},
        ],
    )
    chat = client.chat.completions.create(
        model="tiny",
        max_tokens=1,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "Two."},
            {"role": "user", "content": "3?"},
        ],
    )
    assert asked.input_tokens == chat.usage.prompt_tokens


def test_log_probabilities_are_those_of_chat_completions(client):
    made = client.responses.create(
        **GREEDY, input="Hello", top_logprobs=3, include=["message.output_text.logprobs"]
    )
    chat = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "Hello"}],
        temperature=0,
        max_tokens=12,
        logprobs=True,
        top_logprobs=3,
    )
    ours = made.output[0].content[0].logprobs
    theirs = chat.choices[0].logprobs.content
    assert len(ours) == 12
    assert [entry.token for entry in ours] == [entry.token for entry in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert [top.token for top in mine.top_logprobs] == [top.token for top in other.top_logprobs]
        assert mine.logprob == pytest.approx(other.logprob, abs=1e-4)  # prefixes are cached by now


def test_log_probabilities_are_streamed_with_their_text(plain):
    events = events_of(plain, **GREEDY, input="Hello", top_logprobs=2)
    deltas = [e for e in events if e["type"] == "response.output_text.delta"]
    [done] = [e for e in events if e["type"] == "response.output_text.done"]
    assert [entry for delta in deltas for entry in delta["logprobs"]] == done["logprobs"]
    assert len(done["logprobs"]) == 12


def test_responses_are_kept_listed_and_deleted(client):
    made = client.responses.create(**GREEDY, input="Hello", metadata={"k": "v"})
    again = client.responses.retrieve(made.id)
    assert again == made
    assert again.metadata == {"k": "v"}
    [item] = client.responses.input_items.list(made.id).data
    assert (item.role, item.content[0].text) == ("user", "Hello")
    client.responses.delete(made.id)
    for call in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            call(made.id)
    kept_not = client.responses.create(**GREEDY, input="Hello", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(kept_not.id)


def test_input_items_come_in_pages(client):
    texts = [f"text {i}" for i in range(7)]
    made = client.responses.create(
        **GREEDY, input=[{"role": "user", "content": text} for text in texts]
    )
    for order, expected in (("asc", texts), ("desc", texts[::-1])):
        pages = client.responses.input_items.list(made.id, limit=3, order=order)
        assert [item.content[0].text for item in pages] == expected


def test_a_response_in_the_background_ends_by_itself(client):
    made = client.responses.create(**GREEDY, input="Hello", background=True)
    assert made.status in ("queued", "in_progress")
    ended = until_ended(client, made.id)
    direct = client.responses.create(**GREEDY, input="Hello")
    assert (ended.status, ended.output_text) == (direct.status, direct.output_text)
    assert client.responses.cancel(made.id) == ended


def test_events_of_the_background_can_be_read_again_from_any_place(client, plain):
    stream = client.responses.create(**GREEDY, input="Hello", background=True, stream=True)
    events = [event.to_dict() for event in stream]
    response_id = events[0]["response"]["id"]
    kinds = [event["type"] for event in events[:3]]
    assert kinds == ["response.created", "response.queued", "response.in_progress"]
    later = client.responses.retrieve(response_id, stream=True, starting_after=4)
    assert [event.to_dict() for event in later] == events[5:]
    answer = plain.get(f"/responses/{response_id}", params={"stream": True})
    assert read_events(answer.text) == events


def test_cancelling_ends_the_engines_work_and_keeps_what_there_is(client, server):
    made = client.responses.create(**LONG, input="Go on", background=True)
    cancelled = client.responses.cancel(made.id)
    assert cancelled.status == "cancelled"
    assert_idle(server.loaded)
    assert client.responses.retrieve(made.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="cancelled"):
        client.responses.create(**GREEDY, input="And?", previous_response_id=made.id)


def test_a_stream_in_the_background_outlives_its_reader_and_tells_of_its_end(client, plain):
    with client.responses.create(**LONG, input="Go on", background=True, stream=True) as stream:
        response_id = next(iter(stream)).response.id
    assert client.responses.retrieve(response_id).status in ("queued", "in_progress")
    client.responses.cancel(response_id)
    events = read_events(plain.get(f"/responses/{response_id}?stream=true").text)
    assert (events[-1]["type"], events[-1]["code"]) == ("error", "response_cancelled")
    for event in events:
        check_openai_event(event)


def test_deleting_what_runs_ends_it(client, server):
    made = client.responses.create(**LONG, input="Go on", background=True)
    client.responses.delete(made.id)
    assert_idle(server.loaded)


def test_who_leaves_a_stream_ends_it(client, server):
    with client.responses.create(**LONG, input="Go on", stream=True) as stream:
        response_id = next(iter(stream)).response.id
        next(iter(stream))
    assert_idle(server.loaded)
    assert until_ended(client, response_id).status == "cancelled"


def test_who_leaves_a_whole_response_ends_it(plain, server):
    with pytest.raises(httpx.ReadTimeout):
        plain.post("/responses", json=ENDLESS, timeout=0.05)
    assert_idle(server.loaded)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "input"),
        ({"input": []}, 400, "input"),
        ({"input": 3}, 400, "input"),
        ({"input": "a", "model": "none"}, 404, "model"),
        ({"input": "a", "temprature": 1}, 400, "temprature"),
        ({"input": "a", "temperature": 3}, 400, "temperature"),
        ({"input": "a", "max_output_tokens": 0}, 400, "max_output_tokens"),
        ({"input": "a", "truncation": "auto"}, 400, "truncation"),
        ({"input": "a", "conversation": "conv_1"}, 400, "conversation"),
        ({"input": "a", "previous_response_id": "resp_1"}, 400, "previous_response_id"),
        ({"input": "a", "background": True, "store": False}, 400, "background"),
        ({"input": "a", "tools": [{"type": "web_search"}]}, 400, "tools[0].type"),
        ({"input": "a", "tool_choice": "required"}, 400, "tool_choice"),
        ({"input": "a", "text": {"format": {"type": "json_schema"}}}, 400, "text.format.schema"),
        ({"input": [{"type": "computer_call"}]}, 400, "input[0].type"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, 404, "input[0].id"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
            400,
            "input[0].call_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            400,
            "input[0].content[0].type",
        ),
        (
            {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "["}]},
            400,
            "input[0].arguments",
        ),
        ({"input": [{"role": "user"}]}, 400, "input[0].content"),
        ({"input": "word " * 2000}, 400, None),
        (
            {"input": "a", "text": {"format": {"type": "json_schema", "schema": {"type": "x"}}}},
            400,
            "text.format",
        ),
        (
            {
                "input": "a",
                "tools": [{"type": "function", "name": "f", "parameters": {"type": "x"}}],
                "tool_choice": "required",
            },
            400,
            "tools[0].parameters",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(plain, body, status, param):
    for stream in (False, True):
        answer = plain.post("/responses", json={"model": "tiny", **body, "stream": stream})
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["param"] == param, answer.text


def test_items_can_be_referred_to_while_they_are_stored(client):
    first = client.responses.create(**GREEDY, input="Hello")
    said = first.output[0]
    asked = {"role": "user", "content": "Hello"}
    more = {"role": "user", "content": "More"}
    spelled = client.responses.create(**GREEDY, input=[asked, said.to_dict(), more])
    referred = client.responses.create(
        **GREEDY, input=[asked, {"type": "item_reference", "id": said.id}, more]
    )
    assert referred.output_text == spelled.output_text
    assert referred.usage.input_tokens == spelled.usage.input_tokens


NAMES = [
    *("type", "role", "content", "text", "id", "call_id", "name", "arguments", "output", "schema"),
    *("function", "format", "mode", "tools", "effort", "summary", "parameters"),
]
FIELDS = [
    *("input", "instructions", "tools", "tool_choice", "text", "reasoning", "include", "metadata"),
    *("temperature", "top_p", "top_logprobs", "stream", "store", "previous_response_id", "stop"),
    *("truncation", "user", "stream_options", "seed", "logit_bias", "chat_template_kwargs"),
]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.dictionaries(st.sampled_from(FIELDS), any_json(NAMES), max_size=4),
    item=st.dictionaries(st.sampled_from(NAMES), any_json(NAMES), max_size=4),
)
def test_no_body_however_odd_is_a_fault_of_the_server(plain, body, item):
    kinds = ["message", "function_call", "function_call_output", "reasoning", "item_reference"]
    for given_input in ("Hi", [{"type": kinds[len(body)], "role": "user", **item}]):
        sent = {"input": given_input, "max_output_tokens": 2, "model": "tiny", **body}
        answer = plain.post(
            "/responses", content=json.dumps(sent), headers={"content-type": "application/json"}
        )
        assert answer.status_code < 500, (sent, answer.text)
