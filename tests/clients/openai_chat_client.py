"""OpenAI's Python client: chat completions, whole, streamed, several at once, with log-probs."""

from __future__ import annotations

import asyncio
import json
from typing import Literal

from client_checks import (
    API_KEY,
    BASE_URL,
    CITIES,
    MODEL,
    NUM_CHAT_TOKENS,
    ask,
    equal,
    run_checks,
)
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, ConfigDict, Field

client = OpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0, timeout=120)


class Person(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)
    mood: Literal["happy", "sad"]


def chat(**options):
    options = {"messages": ask(), "temperature": 0, "max_tokens": 12, **options}
    return client.chat.completions.create(model=MODEL, **options)


def streamed(**options):
    """The chunks of an answer."""
    return list(chat(stream=True, **options))


def text_of(chunks, index=0):
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def check_whole_answer():
    answer = chat()
    [choice] = answer.choices
    equal(answer.object, "chat.completion", "object")
    equal(answer.model, MODEL, "model")
    assert answer.id, "no id"
    assert choice.message.content.strip(), "no text"
    equal((choice.index, choice.message.role), (0, "assistant"), "index and role")
    assert choice.finish_reason in ("stop", "length"), choice.finish_reason
    equal(answer.usage.prompt_tokens, NUM_CHAT_TOKENS, "prompt_tokens")
    assert 0 < answer.usage.completion_tokens <= 12, answer.usage
    total = answer.usage.prompt_tokens + answer.usage.completion_tokens
    equal(answer.usage.total_tokens, total, "total_tokens")


def check_stream_is_the_whole_answer():
    whole = chat()
    chunks = streamed(stream_options={"include_usage": True})
    *parts, last = chunks
    equal(text_of(chunks), whole.choices[0].message.content, "streamed text")
    equal(last.choices, [], "choices of the chunk with the usage")
    equal(last.usage.prompt_tokens, whole.usage.prompt_tokens, "prompt_tokens")
    equal(last.usage.completion_tokens, whole.usage.completion_tokens, "completion_tokens")
    equal(parts[0].choices[0].delta.role, "assistant", "role in the first chunk")
    equal({chunk.id for chunk in chunks}, {chunks[0].id}, "ids of the chunks")
    equal({chunk.object for chunk in chunks}, {"chat.completion.chunk"}, "objects")
    reasons = [choice.finish_reason for chunk in parts for choice in chunk.choices]
    equal(reasons[-1], whole.choices[0].finish_reason, "finish_reason in the last choice")
    equal(set(reasons[:-1]), {None}, "finish_reasons before it")
    assert all(chunk.usage is None for chunk in parts), "usage before the last chunk"
    assert len(parts) > 3, f"{len(parts)} chunks: hardly a stream"


def check_stream_without_usage():
    assert all(chunk.usage is None for chunk in streamed(max_tokens=4)), "usage was not asked for"


def check_continuous_usage():
    chunks = streamed(stream_options={"include_usage": True, "continuous_usage_stats": True})
    counts = [chunk.usage.completion_tokens for chunk in chunks]
    equal(counts, sorted(counts), "completion_tokens along the stream")
    equal(counts[-1], chat().usage.completion_tokens, "the last of them")


def check_stream_helper():
    options = {"model": MODEL, "messages": ask(), "temperature": 0, "max_tokens": 12}
    with client.chat.completions.stream(**options) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    equal(final.choices[0].message.content, chat().choices[0].message.content, "final text")
    assert "content.delta" in kinds, kinds
    assert "content.done" in kinds, kinds


async def check_async_at_once():
    async with AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0) as waiting:
        create = waiting.chat.completions.create
        options = {"model": MODEL, "temperature": 0, "max_tokens": 8}
        answers = await asyncio.gather(
            *(create(messages=ask(f"Say {city}."), **options) for city in CITIES)
        )
        assert len({answer.id for answer in answers}) == len(CITIES), "ids are not unique"
        stream = await create(messages=ask(), stream=True, **options)
        chunks = [chunk async for chunk in stream]
    equal(text_of(chunks), chat(max_tokens=8).choices[0].message.content, "streamed text")


def check_several_answers():
    options = {"n": 3, "temperature": 1.2, "seed": 5, "max_tokens": 8}
    answer = chat(**options)
    equal([choice.index for choice in answer.choices], [0, 1, 2], "indices")
    texts = [choice.message.content for choice in answer.choices]
    assert len(set(texts)) > 1, f"all the same: {texts}"
    equal(answer.usage.prompt_tokens, NUM_CHAT_TOKENS, "prompt_tokens, counted once")
    chunks = streamed(**options)
    equal([text_of(chunks, index) for index in range(3)], texts, "streamed texts")


def check_seeds():
    def sampled(seed):
        return chat(seed=seed, temperature=1.5, max_tokens=16).choices[0].message.content

    equal(sampled(1), sampled(1), "the same seed")
    assert sampled(1) != sampled(2), "different seeds gave the same text"


def check_logprobs():
    answer = chat(logprobs=True, top_logprobs=3, max_tokens=6)
    [choice] = answer.choices
    entries = choice.logprobs.content
    equal(len(entries), answer.usage.completion_tokens, "number of log-probs")
    data = b"".join(bytes(entry.bytes) for entry in entries)
    equal(data.decode().removesuffix("<|im_end|>"), choice.message.content, "bytes of the tokens")
    for entry in entries:
        ranks = [top.logprob for top in entry.top_logprobs]
        equal(len(ranks), 3, "number of alternatives")
        equal(ranks, sorted(ranks, reverse=True), "order of the alternatives")
        equal(entry.token, entry.top_logprobs[0].token, "greedy choice")
        assert entry.logprob <= 0, entry
    chunks = streamed(logprobs=True, top_logprobs=3, max_tokens=6)
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.logprobs]
    tokens = [entry.token for choice in choices for entry in choice.logprobs.content]
    equal(tokens, [entry.token for entry in entries], "streamed tokens")


def check_stop():
    full = chat().choices[0].message.content
    word = full.split()[2]
    for answer in (chat(stop=word), chat(stop=[word, "never"])):
        equal(answer.choices[0].message.content, full[: full.index(word)], "text before the stop")
        equal(answer.choices[0].finish_reason, "stop", "finish_reason")
    equal(text_of(streamed(stop=word)), full[: full.index(word)], "streamed text before the stop")


def check_length():
    for name in ("max_tokens", "max_completion_tokens"):
        answer = client.chat.completions.create(model=MODEL, messages=ask(), **{name: 3})
        equal(answer.choices[0].finish_reason, "length", name)
        equal(answer.usage.completion_tokens, 3, name)


def check_roles_and_parts():
    parts = [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": "of Rome?"}]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be kind.", "name": "someone"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "Rome is a capital."},
        {"role": "user", "content": "Thanks."},
    ]
    assert chat(messages=messages).choices[0].message.content


def check_parsed_answer():
    options = {"temperature": 0, "max_tokens": 60, "response_format": Person}
    messages = ask("Ada is 36. As JSON:")
    answer = client.chat.completions.parse(model=MODEL, messages=messages, **options)
    equal(answer.choices[0].finish_reason, "stop", "finish_reason")
    assert isinstance(answer.choices[0].message.parsed, Person), answer
    with client.chat.completions.stream(model=MODEL, messages=messages, **options) as stream:
        final = stream.get_final_completion()
    equal(final.choices[0].message.parsed, answer.choices[0].message.parsed, "streamed")


def check_json_object():
    answer = chat(
        messages=ask("Ada is 36. As JSON:"),
        response_format={"type": "json_object"},
        max_tokens=60,
    )
    text = answer.choices[0].message.content
    assert text.lstrip().startswith("{"), text
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict), text


def check_parameters_of_vllm():
    answer = chat(extra_body={"structured_outputs": {"choice": list(CITIES)}})
    assert answer.choices[0].message.content in CITIES, answer
    answer = chat(extra_body={"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.0}, temperature=1)
    equal(answer.choices[0].message.content, chat().choices[0].message.content, "top_k=1")
    answer = chat(extra_body={"ignore_eos": True, "min_tokens": 5}, max_tokens=40)
    equal(answer.usage.completion_tokens, 40, "with ignore_eos")


def check_parameters_that_change_nothing():
    answer = chat(
        user="somebody",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        parallel_tool_calls=True,
    )
    equal(answer.choices[0].message.content, chat().choices[0].message.content, "text")


if __name__ == "__main__":
    run_checks(globals())
