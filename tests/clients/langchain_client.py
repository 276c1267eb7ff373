"""LangChain's ChatOpenAI and OpenAI: invoke, stream, batch, tools, structured output."""

from __future__ import annotations

from typing import Literal

from client_checks import (
    API_KEY,
    BASE_URL,
    CITIES,
    MODEL,
    NUM_CHAT_TOKENS,
    PROMPT,
    QUESTION,
    equal,
    run_checks,
)
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel, Field

OPTIONS = {
    "model": MODEL,
    "base_url": BASE_URL,
    "api_key": API_KEY,
    "temperature": 0,
    "max_retries": 0,
}
chat = ChatOpenAI(max_tokens=12, **OPTIONS)
patient = ChatOpenAI(max_tokens=80, **OPTIONS)


class Person(BaseModel):
    """Somebody."""

    name: Literal["Ada", "Bob"]
    age: int = Field(ge=0, le=120)


@tool
def get_weather(city: Literal["Paris", "London", "Rome"]) -> str:
    """The weather in a city."""
    return f"Sunny in {city}."


def check_invoke_and_stream():
    answer = chat.invoke(QUESTION)
    assert answer.content.strip(), answer
    equal(answer.usage_metadata["input_tokens"], NUM_CHAT_TOKENS, "input_tokens")
    equal("".join(chunk.content for chunk in chat.stream(QUESTION)), answer.content, "streamed")
    total = None
    for chunk in ChatOpenAI(max_tokens=12, stream_usage=True, **OPTIONS).stream(QUESTION):
        total = chunk if total is None else total + chunk
    equal(total.usage_metadata["total_tokens"], answer.usage_metadata["total_tokens"], "usage")


async def check_async():
    whole = await chat.ainvoke(QUESTION)
    pieces = [chunk.content async for chunk in chat.astream(QUESTION)]
    equal("".join(pieces), whole.content, "streamed")


def check_batch():
    questions = [f"Say {city}." for city in CITIES]
    answers = chat.batch(questions)
    equal(len(answers), len(questions), "number of answers")
    assert all(answer.content for answer in answers), answers


def check_roles():
    assert chat.invoke([SystemMessage("Be brief."), HumanMessage("Hello.")]).content


def check_tools():
    bound = patient.bind_tools([get_weather], tool_choice="required", parallel_tool_calls=False)
    question = HumanMessage("The weather in Rome?")
    answer = bound.invoke([question])
    [call] = answer.tool_calls
    equal(call["name"], "get_weather", "name")
    assert call["args"]["city"] in CITIES, call
    equal(answer.invalid_tool_calls, [], "invalid calls")
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage), result
    equal(result.tool_call_id, call["id"], "id of the call")
    assert chat.invoke([question, answer, result]).content
    total = None
    for chunk in bound.stream([question]):
        total = chunk if total is None else total + chunk
    equal(total.tool_calls[0]["args"], call["args"], "streamed arguments")


def check_named_tool():
    [call] = patient.bind_tools([get_weather], tool_choice="get_weather").invoke("Rome?").tool_calls
    assert call["args"]["city"] in CITIES, call


def check_structured_output():
    for method in ("json_schema", "function_calling"):
        person = patient.with_structured_output(Person, method=method).invoke("Ada is 36.")
        assert isinstance(person, Person), (method, person)
    raw = patient.with_structured_output(Person, include_raw=True).invoke("Ada is 36.")
    equal(raw["parsing_error"], None, "parsing_error")


def check_responses():
    answer = ChatOpenAI(max_tokens=16, use_responses_api=True, **OPTIONS).invoke(QUESTION)
    assert answer.text.strip(), answer


def check_completions():
    complete = OpenAI(max_tokens=6, **OPTIONS)
    text = complete.invoke(PROMPT)
    equal("".join(complete.stream(PROMPT)), text, "streamed")


if __name__ == "__main__":
    run_checks(globals())
