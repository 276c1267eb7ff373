"""OpenAI's agents SDK: a runner with a function tool, over chat completions and responses."""

from __future__ import annotations

from typing import Literal

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from client_checks import API_KEY, BASE_URL, CITIES, MODEL, QUESTION, equal, run_checks
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

set_tracing_disabled(disabled=True)  # traces would be sent to OpenAI
asked: list[str] = []


class Person(BaseModel):
    """Somebody."""

    name: Literal["Ada", "Bob"]
    age: int = Field(ge=0, le=120)


@function_tool
def get_weather(city: Literal["Paris", "London", "Rome"]) -> str:
    """The weather in a city."""
    asked.append(city)
    return f"Sunny in {city}."


def models():
    client = AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0)
    return (
        OpenAIChatCompletionsModel(model=MODEL, openai_client=client),
        OpenAIResponsesModel(model=MODEL, openai_client=client),
    )


async def check_text_and_stream():
    for model in models():
        settings = ModelSettings(temperature=0, max_tokens=16)
        agent = Agent(name="a", instructions="Be brief.", model=model, model_settings=settings)
        whole = await Runner.run(agent, QUESTION)
        assert whole.final_output.strip(), whole
        stream = Runner.run_streamed(agent, QUESTION)
        deltas = [
            event.data.delta
            async for event in stream.stream_events()
            if event.type == "raw_response_event"
            and event.data.type == "response.output_text.delta"
        ]
        equal("".join(deltas), whole.final_output, "streamed text")


async def check_tool():
    """A call is forced, the function runs, and its result goes back with the conversation."""
    for model in models():
        asked.clear()
        settings = ModelSettings(
            temperature=0, max_tokens=60, tool_choice="required", parallel_tool_calls=False
        )
        agent = Agent(
            name="a",
            tools=[get_weather],
            tool_use_behavior="stop_on_first_tool",
            model=model,
            model_settings=settings,
        )
        result = await Runner.run(agent, "The weather in Rome?")
        [city] = asked
        assert city in CITIES, asked
        equal(result.final_output, f"Sunny in {city}.", "what the function said")
        kinds = [item.type for item in result.new_items]
        equal(kinds, ["tool_call_item", "tool_call_output_item"], "items")
        settings = ModelSettings(temperature=0, max_tokens=60)
        talker = Agent(name="b", output_type=Person, model=model, model_settings=settings)
        answer = await Runner.run(talker, result.to_input_list())
        assert isinstance(answer.final_output, Person), answer


async def check_output_type():
    for model in models():
        settings = ModelSettings(temperature=0, max_tokens=60)
        agent = Agent(name="a", output_type=Person, model=model, model_settings=settings)
        result = await Runner.run(agent, "Ada is 36.")
        assert isinstance(result.final_output, Person), result


if __name__ == "__main__":
    run_checks(globals())
