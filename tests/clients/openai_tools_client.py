"""OpenAI's Python client: tool calls, forced, chosen and refused, whole and streamed."""

from __future__ import annotations

import json
from typing import Literal

import openai
from client_checks import (
    API_KEY,
    BASE_URL,
    CLOCK_TOOL,
    MODEL,
    WEATHER_TOOL,
    ask,
    equal,
    is_weather,
    raised_by,
    run_checks,
)
from openai import OpenAI
from pydantic import BaseModel

client = OpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0, timeout=120)
TOOLS = [WEATHER_TOOL, CLOCK_TOOL]
NAMED = {"type": "function", "function": {"name": "get_weather"}}


def chat(**options):
    options = {"messages": ask("The weather in Rome?"), "tools": TOOLS, "temperature": 0, **options}
    return client.chat.completions.create(model=MODEL, **{"max_tokens": 80, **options})


def calls_of(answer):
    [choice] = answer.choices
    assert choice.message.tool_calls, f"no call: {choice.message!r}"
    return choice.message.tool_calls


def is_valid(name, arguments):
    if name == "get_weather":
        is_weather(arguments)
    else:
        equal(name, "get_time", "name of the function")
        assert json.loads(arguments)["zone"] in ("UTC", "CET"), arguments


def check_required():
    for options in ({}, {"temperature": 1.5, "seed": 1}, {"temperature": 1.5, "seed": 2}):
        answer = chat(tool_choice="required", parallel_tool_calls=False, **options)
        [call] = calls_of(answer)
        equal(call.type, "function", "type of the call")
        assert call.id, "a call without an id"
        is_valid(call.function.name, call.function.arguments)
        equal(answer.choices[0].finish_reason, "tool_calls", "finish_reason")
        assert not answer.choices[0].message.content, answer.choices[0].message


def check_named():
    [call] = calls_of(chat(tool_choice=NAMED))
    equal(call.function.name, "get_weather", "name of the function")
    is_weather(call.function.arguments)


def check_parallel():
    answer = chat(tool_choice="required", parallel_tool_calls=True, max_tokens=120)
    if answer.choices[0].finish_reason != "length":
        calls = calls_of(answer)
        for call in calls:
            is_valid(call.function.name, call.function.arguments)
        equal(len({call.id for call in calls}), len(calls), "number of different ids")


def check_none_and_auto():
    answer = chat(tool_choice="none", max_tokens=8)
    equal(answer.choices[0].message.tool_calls, None, "calls with tool_choice none")
    assert answer.choices[0].message.content
    answer = chat(tool_choice="auto")
    message = answer.choices[0].message
    assert message.content or message.tool_calls, message
    for call in message.tool_calls or []:
        json.loads(call.function.arguments)


def check_streamed_deltas():
    for choice in ("required", NAMED):
        options = {"tool_choice": choice, "parallel_tool_calls": False}
        [whole] = calls_of(chat(**options))
        deltas = [
            delta
            for chunk in chat(stream=True, **options)
            for choice in chunk.choices
            for delta in choice.delta.tool_calls or []
        ]
        first, *rest = deltas
        equal({delta.index for delta in deltas}, {0}, "indices")
        equal(first.function.name, whole.function.name, "name")
        equal(first.type, "function", "type")
        assert first.id, "no id"
        assert all(delta.id in (None, first.id) for delta in rest), "the id changes"
        assert all(not delta.function.name for delta in rest), "the name comes twice"
        joined = "".join(delta.function.arguments or "" for delta in deltas)
        equal(json.loads(joined), json.loads(whole.function.arguments), "streamed arguments")


def check_stream_finishes():
    chunks = list(chat(stream=True, tool_choice="required", parallel_tool_calls=False))
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    equal(reasons[-1], "tool_calls", "last finish_reason")


def check_round_trip():
    [call] = calls_of(chat(tool_choice=NAMED))
    messages = [
        *ask("The weather in Rome?"),
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 25 degrees."},
    ]
    answer = chat(messages=messages, tool_choice="none", max_tokens=10)
    assert answer.choices[0].message.content


def check_strict_models():
    class GetWeather(BaseModel):
        """The weather in a city."""

        city: Literal["Paris", "Rome"]
        days: Literal[1, 2, 3]

    answer = client.chat.completions.parse(
        model=MODEL,
        messages=ask("The weather in Rome?"),
        tools=[openai.pydantic_function_tool(GetWeather)],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=60,
    )
    [call] = calls_of(answer)
    assert isinstance(call.function.parsed_arguments, GetWeather), call


def check_bad_choices():
    for choice in (
        {"type": "function", "function": {"name": "unknown"}},
        "sometimes",
    ):
        error = raised_by(lambda choice=choice: chat(tool_choice=choice), openai.BadRequestError)
        equal(error.param.partition(".")[0], "tool_choice", "param")


if __name__ == "__main__":
    run_checks(globals())
