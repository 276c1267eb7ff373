"""LlamaIndex's OpenAILike: complete, chat, both streamed and async, tools, structured output."""

from typing import Literal

from client_checks import API_KEY, BASE_URL, CITIES, MODEL, PROMPT, QUESTION, equal, run_checks
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field

OPTIONS = {
    "model": MODEL,
    "api_base": BASE_URL,
    "api_key": API_KEY,
    "temperature": 0,
    "max_retries": 0,
    "context_window": 2048,
}
completing = OpenAILike(max_tokens=12, is_chat_model=False, **OPTIONS)
chatting = OpenAILike(max_tokens=12, is_chat_model=True, **OPTIONS)
calling = OpenAILike(max_tokens=80, is_chat_model=True, is_function_calling_model=True, **OPTIONS)
MESSAGES = [ChatMessage(role="system", content="Be brief."), ChatMessage(content=QUESTION)]


class Person(BaseModel):
    """Somebody."""

    name: Literal["Ada", "Bob"]
    age: int = Field(ge=0, le=120)


def get_weather(city: Literal["Paris", "London", "Rome"]) -> str:
    """The weather in a city."""
    return f"Sunny in {city}."


def check_complete():
    whole = completing.complete(PROMPT)
    assert whole.text.strip(), whole
    *_, last = completing.stream_complete(PROMPT)
    equal(last.text, whole.text, "streamed text")


def check_chat():
    whole = chatting.chat(MESSAGES)
    assert whole.message.content.strip(), whole
    *_, last = chatting.stream_chat(MESSAGES)
    equal(last.message.content, whole.message.content, "streamed text")
    deltas = [chunk.delta for chunk in chatting.stream_chat(MESSAGES)]
    equal("".join(deltas), last.message.content, "streamed deltas")


async def check_async():
    whole = await chatting.achat(MESSAGES)
    stream = await chatting.astream_chat(MESSAGES)
    text = "".join([chunk.delta async for chunk in stream])
    equal(text, whole.message.content, "streamed text")
    assert (await completing.acomplete(PROMPT)).text


def check_tools():
    weather = FunctionTool.from_defaults(fn=get_weather)
    answer = calling.chat_with_tools([weather], user_msg="Rome?", tool_required=True)
    calls = calling.get_tool_calls_from_response(answer)
    equal({call.tool_name for call in calls}, {"get_weather"}, "names")
    assert all(call.tool_kwargs["city"] in CITIES for call in calls), calls


def check_structured():
    structured = OpenAILike(
        max_tokens=60,
        is_chat_model=True,
        is_function_calling_model=True,
        should_use_structured_outputs=True,
        **OPTIONS,
    )
    person = structured.as_structured_llm(Person).complete("Ada is 36.").raw
    assert isinstance(person, Person), person


if __name__ == "__main__":
    run_checks(globals())
