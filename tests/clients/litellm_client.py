"""LiteLLM: completion and acompletion, streams, tools, schemas, with three of its prefixes."""

from __future__ import annotations

import copy
import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would be downloaded

import litellm
from client_checks import (
    API_KEY,
    BASE_URL,
    CITIES,
    MODEL,
    NUM_CHAT_TOKENS,
    PROMPT,
    UNITS,
    WEATHER_PARAMETERS,
    WEATHER_TOOL,
    ask,
    equal,
    raised_by,
    run_checks,
)

litellm.telemetry = False
PREFIXES = ("openai", "hosted_vllm")
SERVER = {"api_base": BASE_URL, "api_key": API_KEY, "num_retries": 0}


def options_for(prefix, **options):
    options = {"messages": ask(), "temperature": 0, "max_tokens": 12, **options}
    return {"model": f"{prefix}/{MODEL}", **SERVER, **options}


def check_completion_and_stream():
    for prefix in PREFIXES:
        whole = litellm.completion(**options_for(prefix))
        text = whole.choices[0].message.content
        assert text.strip(), whole
        equal(whole.usage.prompt_tokens, NUM_CHAT_TOKENS, "prompt_tokens")
        options = options_for(prefix, stream=True, stream_options={"include_usage": True})
        chunks = list(litellm.completion(**options))
        pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
        equal("".join(pieces), text, "streamed text")
        equal(chunks[-1].usage.prompt_tokens, NUM_CHAT_TOKENS, "prompt_tokens of the stream")


async def check_async():
    for prefix in PREFIXES:
        whole = await litellm.acompletion(**options_for(prefix))
        stream = await litellm.acompletion(**options_for(prefix, stream=True))
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        equal("".join(pieces), whole.choices[0].message.content, "streamed text")


def weather_of(call):
    """What both prefixes let through of the schema: hosted_vllm takes additionalProperties out."""
    equal(call.function.name, "get_weather", "name")
    arguments = json.loads(call.function.arguments)
    assert arguments["city"] in CITIES, arguments
    assert arguments["unit"] in UNITS, arguments
    return arguments


def check_tools():
    for prefix in PREFIXES:
        options = options_for(
            prefix,
            messages=ask("The weather in Rome?"),
            tools=[copy.deepcopy(WEATHER_TOOL)],
            tool_choice="required",
            parallel_tool_calls=False,
            max_tokens=80,
        )
        answer = litellm.completion(**options)
        call = answer.choices[0].message.tool_calls[0]
        equal(answer.choices[0].finish_reason, "tool_calls", "finish_reason")
        rebuilt = litellm.stream_chunk_builder(list(litellm.completion(**options, stream=True)))
        streamed = rebuilt.choices[0].message.tool_calls[0]
        equal(weather_of(streamed), weather_of(call), "streamed arguments")


def check_schema():
    schema = {"name": "weather", "strict": True, "schema": WEATHER_PARAMETERS}
    answer = litellm.completion(
        **options_for(
            "openai",
            max_tokens=60,
            response_format={"type": "json_schema", "json_schema": schema},
        )
    )
    weather = json.loads(answer.choices[0].message.content)
    equal(sorted(weather), ["city", "unit"], "names")


def check_text_completion():
    options = {"temperature": 0, "max_tokens": 6, "prompt": PROMPT, **SERVER}
    whole = litellm.text_completion(model=f"text-completion-openai/{MODEL}", **options)
    assert whole.choices[0].text, whole
    model = f"text-completion-openai/{MODEL}"
    chunks = list(litellm.text_completion(model=model, stream=True, **options))
    text = "".join(choice.text or "" for chunk in chunks for choice in chunk.choices)
    equal(text, whole.choices[0].text, "streamed text")


def check_errors():
    for options, kind in (
        ({"model": "openai/unknown"}, litellm.NotFoundError),
        ({"api_key": "wrong"}, litellm.AuthenticationError),
        ({"temperature": 9}, litellm.BadRequestError),
    ):
        request = {**options_for("openai"), **options}
        raised_by(lambda request=request: litellm.completion(**request), kind)


if __name__ == "__main__":
    run_checks(globals())
