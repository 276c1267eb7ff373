"""Items of /v1/responses: reasoning, calls and text that an engine writes as it is told to."""

from __future__ import annotations

import asyncio

import httpx2
import openai
import pytest
from scripted_engine import ScriptedEngine
from sdk_events import check_openai_event, check_response
from tiny_serving import app_over

from octavo.parsing import ParserRegistry
from octavo.server.config import ServerConfig

pytestmark = pytest.mark.anyio

REGISTRY = ParserRegistry()
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
ANSWER = f"<think>\nAdd them.\n</think>\n\nSumming up.\n{CALL}\n{CALL}"
TOOL = {
    "type": "function",
    "name": "add",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    "strict": False,
}


@pytest.fixture
def engine(tiny_folder):
    return ScriptedEngine(tiny_folder)


@pytest.fixture
async def client(engine, anyio_backend):
    app = app_over(
        engine,
        tool_calls=REGISTRY.tool_call_format("hermes"),
        reasoning=REGISTRY.reasoning_format("think"),
    )
    transport = httpx2.AsyncClient(transport=httpx2.ASGITransport(app))
    async with openai.AsyncOpenAI(
        base_url="http://127.0.0.1/v1", api_key="none", max_retries=0, http_client=transport
    ) as opened:
        yield opened
    assert all(stream.is_closed for stream in engine.streams)


async def events_of(client, **body):
    stream = await client.responses.create(**body, stream=True)
    events = [event.to_dict() async for event in stream]
    for event in events:
        check_openai_event(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def shown(items):
    """Items without their ids, which differ from one response to the next."""
    return [
        {key: value for key, value in item.items() if key not in ("id", "call_id")}
        for item in items
    ]


async def test_reasoning_text_and_calls_are_items_whole_and_streamed(client, engine):
    engine.text = ANSWER
    asked = {"model": "tiny", "input": "1?", "tools": [TOOL]}
    whole = (await client.responses.create(**asked)).to_dict()
    check_response(whole)
    assert [item["type"] for item in whole["output"]] == [
        *("reasoning", "message", "function_call", "function_call"),
    ]
    reasoning, message, call, _ = whole["output"]
    assert [part["text"].strip() for part in reasoning["content"]] == ["Add them."]
    assert message["content"][0]["text"].strip() == "Summing up."
    assert (call["name"], call["arguments"]) == ("add", '{"a": 1}')
    assert whole["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
    assert whole["usage"]["input_tokens_details"]["cached_tokens"] == 2
    assert whole["status"] == "completed"
    events = await events_of(client, **asked)
    last = events[-1]["response"]
    assert shown(last["output"]) == shown(whole["output"])
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == last["output"]
    for kind, name in (("function_call_arguments", "arguments"), ("reasoning_text", "text")):
        for event in events:
            if event["type"] == f"response.{kind}.done":
                deltas = [
                    e["delta"]
                    for e in events
                    if e["type"] == f"response.{kind}.delta" and e["item_id"] == event["item_id"]
                ]
                assert "".join(deltas) == event[name]


async def test_the_id_of_the_last_response_stands_for_all_that_was_said(client, engine):
    engine.text = ANSWER
    first = await client.responses.create(
        model="tiny", input="What is 1?", instructions="Old.", tools=[TOOL]
    )
    calls = [item for item in first.output if item.type == "function_call"]
    results = [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"is {i}"}
        for i, call in enumerate(calls)
    ]
    engine.text = "So it is 1."
    second = await client.responses.create(
        model="tiny", input=results, tools=[TOOL], previous_response_id=first.id
    )
    third = await client.responses.create(
        model="tiny", input="Sure?", tools=[TOOL], previous_response_id=second.id
    )
    await client.responses.create(
        model="tiny",
        tools=[TOOL],
        input=[
            {"role": "user", "content": "What is 1?"},
            *(item.to_dict() for item in first.output),
            *results,
            *(item.to_dict() for item in second.output),
            {"role": "user", "content": "Sure?"},
        ],
    )
    assert engine.prompts[-1] == engine.prompts[-2]
    assert len(engine.prompts[-1]) > len(engine.prompts[1]) > len(engine.prompts[0])
    chat = [
        {"role": "user", "content": "What is 1?"},
        {
            "role": "assistant",
            "content": first.output_text,
            "reasoning_content": first.output[0].content[0].text,
            "tool_calls": [
                {
                    "id": call.call_id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in calls
            ],
        },
        *(
            {"role": "tool", "tool_call_id": call.call_id, "content": f"is {i}"}
            for i, call in enumerate(calls)
        ),
        {"role": "assistant", "content": second.output_text},
        {"role": "user", "content": "Sure?"},
    ]
    function = {"name": TOOL["name"], "parameters": TOOL["parameters"]}
    await client.chat.completions.create(
        model="tiny", messages=chat, tools=[{"type": "function", "function": function}]
    )
    assert engine.prompts[-1] == engine.prompts[-2]
    counted = await client.responses.input_tokens.count(
        model="tiny", input="Sure?", previous_response_id=second.id, tools=[TOOL]
    )
    assert counted.input_tokens == len(engine.prompts[-2])
    assert third.previous_response_id == second.id


async def test_sealed_reasoning_stands_for_its_text(client, engine):
    engine.text = "<think>Quietly.</think>Yes."
    made = await client.responses.create(
        model="tiny", input="?", include=["reasoning.encrypted_content"], store=False
    )
    reasoning = made.output[0]
    spelled = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": reasoning.content[0].text}],
    }
    sealed = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "encrypted_content": reasoning.encrypted_content,
    }
    for item in (spelled, sealed):
        await client.responses.create(
            model="tiny",
            input=[
                item,
                {"role": "assistant", "content": "Yes."},
                {"role": "user", "content": "Why?"},
            ],
        )
    assert engine.prompts[-1] == engine.prompts[-2]
    with pytest.raises(openai.BadRequestError, match="has not written it"):
        await client.responses.create(
            model="tiny", input=[{**sealed, "encrypted_content": "gAAAA"}]
        )


async def test_an_answer_cut_in_a_call_has_an_incomplete_item(client, engine):
    engine.text, engine.finish_reason = CALL[:-25], "length"
    events = await events_of(client, model="tiny", input="1?", tools=[TOOL])
    last = events[-1]["response"]
    assert last["status"] == "incomplete"
    assert [item["status"] for item in last["output"]] == ["incomplete"]


async def test_an_error_in_the_middle_is_told_in_the_stream_or_by_the_status(client, engine):
    engine.text, engine.error = "Hello world", "the device is on fire"
    events = await events_of(client, model="tiny", input="1?")
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert events[-2]["message"] == "the device is on fire"
    failed = events[-1]["response"]
    assert failed["error"] == {"code": "server_error", "message": "the device is on fire"}
    with pytest.raises(openai.InternalServerError, match="on fire"):
        await client.responses.create(model="tiny", input="1?")
    with pytest.raises(openai.BadRequestError, match="failed"):
        await client.responses.create(model="tiny", input="?", previous_response_id=failed["id"])


async def test_an_engine_that_ends_requests_makes_responses_fail(client, engine):
    engine.text, engine.finish_reason = "Hello", "abort"
    with pytest.raises(openai.InternalServerError):
        await client.responses.create(model="tiny", input="1?")
    made = await client.responses.create(model="tiny", input="1?", background=True, stream=True)
    assert [event.type async for event in made][-1] == "response.failed"


async def test_what_the_request_asks_for_reaches_the_engine(client, engine):
    await client.responses.create(
        model="tiny",
        input="1?",
        temperature=0.5,
        top_p=0.25,
        max_output_tokens=9,
        top_logprobs=4,
        text={"format": {"type": "json_object"}},
        extra_body={"top_k": 3, "seed": 5, "stop": ["x"]},
    )
    params = engine.params[-1]
    assert (params.temperature, params.top_p, params.top_k) == (0.5, 0.25, 3)
    assert (params.max_tokens, params.logprobs, params.seed) == (9, 4, 5)
    assert tuple(params.stop) == ("x",)
    assert params.structured_outputs is not None
    await client.responses.create(model="tiny", input="1?")
    assert engine.params[-1].max_tokens is None


async def test_prompts_beyond_the_servers_limit_are_refused(engine, anyio_backend):
    app = app_over(engine, ServerConfig(max_prompt_tokens=30))
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1"
    ) as http:
        for text, status in (("a", 200), ("x y " * 50, 400)):
            answer = await http.post("/v1/responses", json={"model": "tiny", "input": text})
            assert answer.status_code == status, answer.text
            message = {
                "model": "tiny",
                "max_tokens": 3,
                "messages": [{"role": "user", "content": text}],
            }
            answer = await http.post("/v1/messages", json=message)
            assert answer.status_code == status, answer.text
    assert len(engine.prompts) == 2


async def test_time_limits_hold_in_the_background(engine, anyio_backend):
    engine.pause = asyncio.Event()
    app = app_over(engine, ServerConfig(request_timeout_s=0.05))
    server = app.state.octavo
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1"
    ) as http:
        body = {"model": "tiny", "input": "?", "background": True}
        made = (await http.post("/v1/responses", json=body)).json()
        assert server.num_requests_in_flight == 1
        await asyncio.wait({server.responses.get(made["id"]).task}, timeout=30)
        await asyncio.sleep(0)
        ended = (await http.get(f"/v1/responses/{made['id']}")).json()
        check_response(ended)
        assert (ended["status"], ended["error"]["code"]) == ("failed", "server_error")
        assert server.num_requests_in_flight == 0
        assert engine.streams[-1].is_closed


async def test_only_some_functions_may_be_allowed(client, engine):
    other = {**TOOL, "name": "sub"}
    made = await client.responses.create(
        model="tiny",
        input="1?",
        tools=[TOOL, other],
        tool_choice={
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "sub"}],
        },
    )
    assert made.tool_choice.mode == "auto"
    check_response(made.to_dict())
    with pytest.raises(openai.BadRequestError, match="'mul'"):
        await client.responses.create(
            model="tiny", input="1?", tools=[TOOL], tool_choice={"type": "function", "name": "mul"}
        )


async def test_a_call_that_breaks_off_is_text_in_a_whole_answer(client, engine):
    engine.text, engine.finish_reason = CALL[:-25], "length"
    made = await client.responses.create(model="tiny", input="1?", tools=[TOOL])
    assert (made.status, made.output_text) == ("incomplete", CALL[:-25])
    assert made.output[0].status == "incomplete"
