"""OpenAI's Python client: responses, created, streamed, retrieved, continued, cancelled."""

from __future__ import annotations

from typing import Literal

import openai
from client_checks import (
    API_KEY,
    BASE_URL,
    MODEL,
    NUM_CHAT_TOKENS,
    QUESTION,
    WEATHER_PARAMETERS,
    equal,
    is_idle,
    is_weather,
    raised_by,
    run_checks,
    until,
)
from openai import OpenAI
from pydantic import BaseModel

client = OpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0, timeout=120)
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": WEATHER_PARAMETERS,
    "strict": True,
}
ONE_CALL = {"tools": [TOOL], "parallel_tool_calls": False}


class Answer(BaseModel):
    capital: Literal["Paris", "London"]
    is_big: bool


def create(**options):
    options = {"input": QUESTION, "temperature": 0, "max_output_tokens": 16, **options}
    return client.responses.create(model=MODEL, **options)


def check_create():
    response = create()
    equal(response.object, "response", "object")
    assert response.output_text.strip(), response
    equal(response.model, MODEL, "model")
    equal(response.usage.input_tokens, NUM_CHAT_TOKENS, "input_tokens")
    total = response.usage.input_tokens + response.usage.output_tokens
    equal(response.usage.total_tokens, total, "total_tokens")
    chat = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=16,
    )
    equal(response.output_text, chat.choices[0].message.content, "text, as of a chat completion")


def check_incomplete():
    response = create(max_output_tokens=3)
    equal(response.status, "incomplete", "status")
    equal(response.incomplete_details.reason, "max_output_tokens", "reason")
    equal(response.usage.output_tokens, 3, "output_tokens")


def check_completed():
    response = create(text={"format": {"type": "json_schema", "name": "a", "schema": {"const": 1}}})
    equal(response.status, "completed", "status")
    equal(response.output_text.strip(), "1", "text")


def check_stream():
    whole = create()
    events = list(create(stream=True))
    kinds = [event.type for event in events]
    equal(kinds[:2], ["response.created", "response.in_progress"], "first events")
    equal([event.sequence_number for event in events], list(range(len(events))), "numbers")
    last = "response.completed" if whole.status == "completed" else "response.incomplete"
    equal(kinds[-1], last, "last event")
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    equal("".join(deltas), whole.output_text, "streamed text")
    equal(events[-1].response.output_text, whole.output_text, "text of the last event")
    for kind in ("output_item.added", "content_part.added", "output_text.done"):
        assert f"response.{kind}" in kinds, kinds


def check_stream_helper():
    with client.responses.stream(
        model=MODEL, input="The capital of France, as JSON:", text_format=Answer
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert isinstance(final.output_parsed, Answer), final


def check_parse():
    response = client.responses.parse(
        model=MODEL, input="The capital of France, as JSON:", text_format=Answer
    )
    assert isinstance(response.output_parsed, Answer), response


def check_input_items_and_instructions():
    response = create(
        instructions="Be brief.",
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "Hello."}]},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": QUESTION},
        ],
    )
    assert response.output_text.strip(), response


def check_tool_call_and_its_output():
    response = create(tool_choice="required", max_output_tokens=80, **ONE_CALL)
    [call] = [item for item in response.output if item.type == "function_call"]
    equal(call.name, "get_weather", "name")
    is_weather(call.arguments)
    assert call.call_id, call
    answer = create(
        input=[
            {"role": "user", "content": QUESTION},
            call.model_dump(exclude_none=True),
            {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."},
        ],
        tools=[TOOL],
        tool_choice="none",
    )
    assert answer.output_text.strip(), answer


def check_streamed_tool_call():
    choice = {"type": "function", "name": "get_weather"}
    events = list(create(stream=True, tool_choice=choice, max_output_tokens=80, **ONE_CALL))
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    [done] = [e for e in events if e.type == "response.function_call_arguments.done"]
    equal("".join(deltas), done.arguments, "streamed arguments")
    is_weather(done.arguments)


def check_retrieve_continue_delete():
    response = create(store=True)
    found = client.responses.retrieve(response.id)
    equal(found.output_text, response.output_text, "retrieved text")
    more = create(previous_response_id=response.id, input="And of Italy?", max_output_tokens=4)
    assert more.usage.input_tokens > response.usage.input_tokens, more.usage
    equal(more.previous_response_id, response.id, "previous_response_id")
    client.responses.delete(response.id)
    raised_by(lambda: client.responses.retrieve(response.id), openai.NotFoundError)


def check_background_and_cancel():
    response = create(
        background=True,
        store=True,
        max_output_tokens=400,
        extra_body={"ignore_eos": True},
    )
    assert response.status in ("queued", "in_progress"), response.status
    cancelled = client.responses.cancel(response.id)
    equal(cancelled.status, "cancelled", "status")
    until(is_idle, "the cancelled response computes no more")
    equal(client.responses.retrieve(response.id).status, "cancelled", "status when retrieved")


def check_errors():
    for call, kind in (
        (lambda: create(temperature=9), openai.BadRequestError),
        (lambda: create(extra_body={"unknown_parameter": 1}), openai.BadRequestError),
        (lambda: create(previous_response_id="resp_unknown"), openai.BadRequestError),
        (lambda: client.responses.retrieve("resp_unknown"), openai.NotFoundError),
        (lambda: client.responses.cancel("resp_unknown"), openai.NotFoundError),
    ):
        raised_by(call, kind)


if __name__ == "__main__":
    run_checks(globals())
