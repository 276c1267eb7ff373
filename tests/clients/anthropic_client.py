"""Anthropic's Python client: messages, streams, tools, token counts, errors."""

from __future__ import annotations

import anthropic
from anthropic import Anthropic, AsyncAnthropic
from client_checks import (
    API_KEY,
    MODEL,
    NUM_CHAT_TOKENS,
    ROOT_URL,
    WEATHER_PARAMETERS,
    ask,
    equal,
    is_weather,
    raised_by,
    run_checks,
)

client = Anthropic(base_url=ROOT_URL, api_key=API_KEY, max_retries=0, timeout=120)
TOOL = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": WEATHER_PARAMETERS,
}


def options_for(**options):
    greedy = {"extra_body": {"temperature": 0}}
    return {"model": MODEL, "messages": ask(), "max_tokens": 12, **greedy, **options}


def create(**options):
    return client.messages.create(**options_for(**options))


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


def check_create():
    message = create()
    equal((message.type, message.role, message.model), ("message", "assistant", MODEL), "message")
    assert text_of(message).strip(), message
    assert message.stop_reason in ("end_turn", "max_tokens"), message.stop_reason
    equal(message.usage.input_tokens, NUM_CHAT_TOKENS, "input_tokens")
    assert 0 < message.usage.output_tokens <= 12, message.usage


def check_stop_reasons():
    full = text_of(create())
    word = full.split()[2]
    message = create(stop_sequences=[word])
    equal(text_of(message), full[: full.index(word)], "text before the stop sequence")
    equal((message.stop_reason, message.stop_sequence), ("stop_sequence", word), "stop reason")
    equal(create(max_tokens=2).stop_reason, "max_tokens", "stop reason")


def check_raw_stream():
    whole = create()
    events = list(create(stream=True))
    kinds = [event.type for event in events if event.type != "ping"]
    equal(kinds[:2], ["message_start", "content_block_start"], "first events")
    equal(kinds[-3:], ["content_block_stop", "message_delta", "message_stop"], "last events")
    deltas = [event.delta.text for event in events if event.type == "content_block_delta"]
    equal("".join(deltas), text_of(whole), "streamed text")


def check_stream_helper():
    with client.messages.stream(**options_for()) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    whole = create()
    equal(text, text_of(whole), "streamed text")
    equal(final.usage.output_tokens, whole.usage.output_tokens, "output_tokens")
    equal(final.stop_reason, whole.stop_reason, "stop_reason")


async def check_async():
    async with AsyncAnthropic(base_url=ROOT_URL, api_key=API_KEY, max_retries=0) as waiting:
        message = await waiting.messages.create(**options_for())
    equal(text_of(message), text_of(create()), "text")


def check_system_and_blocks():
    message = create(
        system=[{"type": "text", "text": "Be brief."}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "Hello."}]},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "How are you?"},
        ],
    )
    assert text_of(message).strip(), message


def check_tools():
    for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather"}):
        options = {
            "messages": ask("The weather in Rome?"),
            "tools": [TOOL],
            "tool_choice": {**choice, "disable_parallel_tool_use": True},
            "max_tokens": 80,
        }
        message = create(**options)
        equal(message.stop_reason, "tool_use", "stop_reason")
        [call] = [block for block in message.content if block.type == "tool_use"]
        equal(call.name, "get_weather", "name")
        is_weather(call.input)
        with client.messages.stream(**options_for(**options)) as stream:
            final = stream.get_final_message()
        [streamed] = [block for block in final.content if block.type == "tool_use"]
        equal(streamed.input, call.input, "streamed input")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny."}
    answer = create(
        messages=[
            *ask("The weather in Rome?"),
            {"role": "assistant", "content": [call.model_dump(exclude_none=True)]},
            {"role": "user", "content": [result]},
        ],
        tools=[TOOL],
        tool_choice={"type": "none"},
    )
    assert text_of(answer).strip(), answer


def check_count_tokens():
    count = client.messages.count_tokens(model=MODEL, messages=ask())
    equal(count.input_tokens, NUM_CHAT_TOKENS, "input_tokens")


def check_errors():
    for call, kind, name in (
        (lambda: create(max_tokens=0), anthropic.BadRequestError, "invalid_request_error"),
        (lambda: create(messages=[]), anthropic.BadRequestError, "invalid_request_error"),
        (lambda: create(model="unknown"), anthropic.NotFoundError, "not_found_error"),
        (
            lambda: client.with_options(api_key="wrong").messages.create(**options_for()),
            anthropic.AuthenticationError,
            "authentication_error",
        ),
    ):
        error = raised_by(call, kind)
        equal(error.body["type"], "error", "type of the body")
        equal(error.body["error"]["type"], name, "type of the error")


if __name__ == "__main__":
    run_checks(globals())
