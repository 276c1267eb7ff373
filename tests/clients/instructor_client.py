"""instructor: structured extraction in the modes that ask a server for tools, JSON or a schema."""

from __future__ import annotations

from typing import Literal

import instructor
from client_checks import API_KEY, BASE_URL, MODEL, ask, equal, run_checks
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field

MESSAGES = ask("Ada is 36 and happy.")
MODES = (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA)


class Person(BaseModel):
    """Somebody."""

    name: Literal["Ada", "Bob"]
    age: int = Field(ge=0, le=120)
    mood: Literal["happy", "sad"]


def options_for(mode):
    options = {"model": MODEL, "messages": MESSAGES, "max_tokens": 80, "temperature": 0}
    return {**options, "response_model": Person, "max_retries": 0}


def check_extraction():
    found = []
    for mode in MODES:
        client = instructor.from_openai(OpenAI(base_url=BASE_URL, api_key=API_KEY), mode=mode)
        person, answer = client.create_with_completion(**options_for(mode))
        assert isinstance(person, Person), (mode, person)
        assert answer.usage.completion_tokens > 0, answer
        found.append(person)
    equal(len(found), len(MODES), "number of persons")


async def check_async_extraction():
    client = instructor.from_openai(AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY))
    person = await client.create(**options_for(instructor.Mode.TOOLS))
    assert isinstance(person, Person), person


def check_partial_stream():
    openai = OpenAI(base_url=BASE_URL, api_key=API_KEY)
    client = instructor.from_openai(openai, mode=instructor.Mode.JSON_SCHEMA)
    *_, last = client.create_partial(**options_for(instructor.Mode.JSON_SCHEMA))
    whole = client.create(**options_for(instructor.Mode.JSON_SCHEMA))
    equal(last.model_dump(), whole.model_dump(), "streamed object")


if __name__ == "__main__":
    run_checks(globals())
