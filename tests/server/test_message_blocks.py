"""Blocks of /v1/messages: thinking, calls and text that an engine writes as it is told to."""

from __future__ import annotations

import json

import anthropic
import httpx2
import pytest
from scripted_engine import ScriptedEngine
from sdk_events import check_anthropic_event, check_message
from tiny_serving import app_over

from octavo.parsing import ParserRegistry

pytestmark = pytest.mark.anyio

REGISTRY = ParserRegistry()
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
ANSWER = f"<think>\nAdd them.\n</think>\n\nSumming up.\n{CALL}\n{CALL}"
TOOL = {
    "name": "add",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
ASKED = {
    "model": "tiny",
    "max_tokens": 300,
    "tools": [TOOL],
    "messages": [{"role": "user", "content": "What is 1?"}],
}


@pytest.fixture
def engine(tiny_folder):
    return ScriptedEngine(tiny_folder)


@pytest.fixture
async def http(engine, anyio_backend):
    app = app_over(
        engine,
        tool_calls=REGISTRY.tool_call_format("hermes"),
        reasoning=REGISTRY.reasoning_format("think"),
    )
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as opened:
        yield opened
    assert all(stream.is_closed for stream in engine.streams)


@pytest.fixture
async def client(http):
    return anthropic.AsyncAnthropic(
        base_url="http://127.0.0.1", api_key="none", max_retries=0, http_client=http
    )


def shown(blocks):
    """Blocks without their ids, which differ from one message to the next."""
    return [{key: value for key, value in block.items() if key != "id"} for block in blocks]


async def test_thinking_text_and_calls_are_blocks_whole_and_streamed(client, engine):
    engine.text = ANSWER
    whole = (await client.messages.create(**ASKED)).to_dict()
    check_message(whole)
    kinds = [block["type"] for block in whole["content"]]
    assert kinds == ["thinking", "text", "tool_use", "tool_use"]
    thinking, text, call, _ = whole["content"]
    assert thinking["thinking"].strip() == "Add them."
    assert thinking["signature"]
    assert text["text"].strip() == "Summing up."
    assert (call["name"], call["input"]) == ("add", {"a": 1})
    assert call["id"].startswith("toolu_")
    assert whole["stop_reason"] == "tool_use"
    assert whole["usage"]["cache_read_input_tokens"] == 2
    assert whole["usage"]["output_tokens_details"]["thinking_tokens"] > 0
    stream = await client.messages.create(**ASKED, stream=True)
    events = [event.to_dict() async for event in stream]
    for event in events:
        check_anthropic_event(event)
    pieces = [e["delta"] for e in events if e["type"] == "content_block_delta"]
    arguments = [piece["partial_json"] for piece in pieces if piece["type"] == "input_json_delta"]
    assert len(arguments) > 2
    assert "signature_delta" in {piece["type"] for piece in pieces}
    async with client.messages.stream(**ASKED) as helper:
        final = (await helper.get_final_message()).to_dict()
    assert shown(final["content"]) == shown(whole["content"])
    assert final["stop_reason"] == "tool_use"


async def test_thinking_can_be_omitted(client, engine):
    engine.text = "<think>Quietly.</think>Yes."
    thinking = {"type": "adaptive", "display": "omitted"}
    message = await client.messages.create(**ASKED, thinking=thinking)
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].thinking == ""


async def test_a_conversation_with_calls_makes_the_prompt_of_chat_completions(client, http, engine):
    engine.text = ANSWER
    first = await client.messages.create(**ASKED)
    calls = [block for block in first.content if block.type == "tool_use"]
    results = [
        {
            "type": "tool_result",
            "tool_use_id": calls[0].id,
            "content": [{"type": "text", "text": "is 0"}],
        },
        {"type": "tool_result", "tool_use_id": calls[1].id, "content": "no", "is_error": True},
        {"type": "text", "text": "Go on"},
    ]
    engine.text = "So."
    messages = [
        *ASKED["messages"],
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": results},
    ]
    answer = await client.messages.create(**{**ASKED, "messages": messages})
    assert answer.stop_reason == "end_turn"
    counted = await client.messages.count_tokens(model="tiny", tools=[TOOL], messages=messages)
    assert counted.input_tokens == len(engine.prompts[-1])
    chat = [
        *ASKED["messages"],
        {
            "role": "assistant",
            "content": first.content[1].text,
            "reasoning_content": first.content[0].thinking,
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.dumps(call.input)},
                }
                for call in calls
            ],
        },
        {"role": "tool", "tool_call_id": calls[0].id, "content": "is 0"},
        {"role": "tool", "tool_call_id": calls[1].id, "content": "Error: no"},
        {"role": "user", "content": "Go on"},
    ]
    function = {"name": TOOL["name"], "parameters": TOOL["input_schema"]}
    await http.post(
        "http://127.0.0.1/v1/chat/completions",
        json={
            "model": "tiny",
            "messages": chat,
            "tools": [{"type": "function", "function": function}],
        },
    )
    assert engine.prompts[-1] == engine.prompts[-2]


async def test_what_ended_the_answer_is_named(client, engine):
    engine.text = "Hello"
    num_tokens = len(engine.tokenizer.encode("Hello"))
    for finish_reason, stop_reason, max_tokens, expected in (
        ("stop", None, 300, ("end_turn", None)),
        ("stop", 7, 300, ("end_turn", None)),
        ("stop", "lo", 300, ("stop_sequence", "lo")),
        ("length", None, num_tokens, ("max_tokens", None)),
        ("length", None, 300, ("model_context_window_exceeded", None)),
    ):
        engine.finish_reason, engine.stop_reason = finish_reason, stop_reason
        message = await client.messages.create(
            **{**ASKED, "max_tokens": max_tokens}, stop_sequences=["lo"]
        )
        assert (message.stop_reason, message.stop_sequence) == expected
    engine.finish_reason = "abort"
    with pytest.raises(anthropic.InternalServerError):
        await client.messages.create(**ASKED)


async def test_an_error_in_the_middle_is_told_in_the_stream_or_by_the_status(client, engine):
    engine.text, engine.error = "Hello world", "the device is on fire"
    with pytest.raises(anthropic.InternalServerError, match="on fire"):
        await client.messages.create(**ASKED)
    stream = await client.messages.create(**ASKED, stream=True)
    with pytest.raises(anthropic.APIStatusError, match="on fire"):
        _ = [event async for event in stream]


async def test_what_the_request_asks_for_reaches_the_engine(client, engine):
    schema = {"type": "object"}
    await client.messages.create(
        **ASKED,
        stop_sequences=["x"],
        metadata={"user_id": "u"},
        tool_choice={"type": "none"},
        output_config={"format": {"type": "json_schema", "schema": schema}},
        extra_body={"temperature": 0.5, "top_p": 0.25, "top_k": 3},
    )
    params = engine.params[-1]
    assert (params.temperature, params.top_p, params.top_k) == (0.5, 0.25, 3)
    assert (params.max_tokens, tuple(params.stop)) == (300, ("x",))
    assert params.structured_outputs is not None
