"""Structured output of SmolLM2: sensible answers, in form, beside free ones, by every front end."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re

import jsonschema
import pytest

from octavo import LLM, AsyncLLM, SamplingParams, StructuredOutputs
from octavo.sampling_params import RequestOutputKind

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {
            "type": "array",
            "items": {"enum": ["friend", "colleague", "family"]},
            "minItems": 1,
            "maxItems": 2,
        },
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
PROMPT = 'Ada is 36. {"name": "Ada", "age": 36, "tags": ["friend"]}\nBob is 41. '


@pytest.fixture(scope="module")
def llm(smollm2_path):
    llm = LLM(str(smollm2_path), device="cpu", backend="numpy", quiet=True, max_model_len=512)
    yield llm
    llm.close()


def params(max_tokens=120, temperature=0.0, **outputs):
    return SamplingParams(
        temperature=temperature,
        max_tokens=max_tokens,
        structured_outputs=StructuredOutputs(**outputs),
    )


def text_of(llm, prompt, asked):
    [answer] = llm.generate(prompt, asked)[0].outputs
    assert answer.finish_reason == "stop"
    return answer.text


def test_a_greedy_answer_holds_what_the_prompt_says(llm):
    value = json.loads(text_of(llm, PROMPT, params(json=SCHEMA, whitespace_pattern=" ")))
    jsonschema.validate(value, SCHEMA)
    assert (value["name"], value["age"]) == ("Bob", 41)


def test_sampled_answers_validate_and_others_in_the_batch_are_as_alone(llm):
    form = params(json=SCHEMA, temperature=1.0, disable_any_whitespace=True)
    each = [dataclasses.replace(form, seed=seed) for seed in range(8)]
    free = SamplingParams(temperature=1.0, seed=3, max_tokens=12)
    alone = llm.generate("Once upon a time", free)[0].outputs[0].token_ids
    outputs = llm.generate([PROMPT] * 8 + ["Once upon a time"], [*each, free])
    assert outputs.pop().outputs[0].token_ids == alone
    texts = [output.outputs[0].text for output in outputs]
    for text in texts:
        jsonschema.validate(json.loads(text), SCHEMA)
    assert len(set(texts)) > 4


def test_choice_regex_and_grammar(llm):
    question = "The capital of France is"
    assert text_of(llm, question, params(choice=[" Rome", " Paris", " Oslo"])) == " Paris"
    text = text_of(llm, "Call me at", params(regex=r" \d{3}-\d{4}"))
    assert re.fullmatch(r" \d{3}-\d{4}", text)
    grammar = 'root ::= "(" [0-9]+ (" + " [0-9]+)* ")"'
    assert re.fullmatch(
        r"\(\d+( \+ \d+)*\)?",
        llm.generate("Add:", params(max_tokens=15, grammar=grammar))[0].outputs[0].text,
    )


def test_streams_and_the_asynchronous_engine_give_the_same(llm):
    form = params(json=SCHEMA, disable_any_whitespace=True)
    expected = text_of(llm, PROMPT, form)
    assert "".join(piece.outputs[0].text for piece in llm.stream(PROMPT, form)) == expected
    serving = AsyncLLM.from_loaded(llm.loaded)
    last = dataclasses.replace(form, output_kind=RequestOutputKind.FINAL_ONLY)

    async def one():
        async for output in serving.generate(PROMPT, last):
            text = output.outputs[0].text
        return text

    async def main():
        assert await asyncio.gather(one(), one()) == [expected] * 2

    asyncio.run(main())
    serving._loop.stop()  # the model is the fixture's to close
    serving._thread.join()
