"""pydantic-ai: an agent with a tool and an output type, over chat completions and responses."""

from __future__ import annotations

from typing import Literal

from client_checks import API_KEY, BASE_URL, CITIES, MODEL, QUESTION, equal, run_checks
from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=BASE_URL, api_key=API_KEY)
chat = OpenAIChatModel(MODEL, provider=provider)
responses = OpenAIResponsesModel(MODEL, provider=provider)
SHORT = {"temperature": 0, "max_tokens": 16}
LONG = {"temperature": 0, "max_tokens": 100, "parallel_tool_calls": False}


class Person(BaseModel):
    """Somebody."""

    name: Literal["Ada", "Bob"]
    age: int = Field(ge=0, le=120)


def check_text():
    for model in (chat, responses):
        result = Agent(model, instructions="Be brief.").run_sync(QUESTION, model_settings=SHORT)
        assert result.output.strip(), result
        assert result.usage.output_tokens > 0, result.usage


async def check_stream():
    agent = Agent(chat)
    whole = await agent.run(QUESTION, model_settings=SHORT)
    async with agent.run_stream(QUESTION, model_settings=SHORT) as stream:
        text = "".join([part async for part in stream.stream_text(delta=True, debounce_by=None)])
    equal(text, whole.output, "streamed text")


def check_output_type():
    """The output type is a tool, and tool_choice is "required"."""
    for model in (chat, responses):
        result = Agent(model, output_type=Person, retries=0).run_sync(
            "Ada is 36.", model_settings=LONG
        )
        assert isinstance(result.output, Person), result


def check_native_output():
    agent = Agent(chat, output_type=NativeOutput(Person), retries=0)
    assert isinstance(agent.run_sync("Ada is 36.", model_settings=LONG).output, Person)


def check_tool():
    asked = []
    agent = Agent(chat, output_type=Person, retries=0)

    @agent.tool_plain
    def get_weather(city: Literal["Paris", "London", "Rome"]) -> str:
        """The weather in a city."""
        asked.append(city)
        if len(asked) > 3:
            # Nothing but chance would end a tiny model's calls.
            raise StopIteration
        return "Sunny."

    # Either tool may be taken first; both take only what their schemas allow.
    try:
        result = agent.run_sync("The weather in Rome?", model_settings=LONG)
    except (StopIteration, RuntimeError):
        assert len(asked) > 3, asked
    else:
        assert isinstance(result.output, Person), result
    assert all(city in CITIES for city in asked), asked


if __name__ == "__main__":
    run_checks(globals())
