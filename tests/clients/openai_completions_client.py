"""OpenAI's Python client: completions of text and of token ids, echoed, with log-probs."""

from __future__ import annotations

import openai
from client_checks import (
    API_KEY,
    BASE_URL,
    MODEL,
    PROMPT,
    equal,
    run_checks,
)
from openai import OpenAI

client = OpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0, timeout=120)
# What transformers' tokenizer makes of PROMPT.
PROMPT_IDS = [504, 3575, 282, 4649, 314]


def complete(**options):
    options = {"prompt": PROMPT, "temperature": 0, "max_tokens": 8, **options}
    return client.completions.create(model=MODEL, **options)


def check_whole_and_streamed():
    whole = complete()
    equal(whole.object, "text_completion", "object")
    equal(whole.usage.prompt_tokens, len(PROMPT_IDS), "prompt_tokens")
    assert whole.choices[0].finish_reason in ("stop", "length")
    chunks = list(complete(stream=True, stream_options={"include_usage": True}))
    text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    equal(text, whole.choices[0].text, "streamed text")
    equal(chunks[-1].usage.total_tokens, whole.usage.total_tokens, "streamed usage")
    equal(chunks[-2].choices[0].finish_reason, whole.choices[0].finish_reason, "finish_reason")


def check_token_ids_are_the_text():
    text = complete().choices[0].text
    equal(complete(prompt=PROMPT_IDS).choices[0].text, text, "for token ids")
    answer = complete(prompt=[PROMPT_IDS, PROMPT_IDS[:3]])
    equal([choice.index for choice in answer.choices], [0, 1], "indices")
    equal(answer.choices[0].text, text, "for lists of token ids")
    equal(answer.usage.prompt_tokens, len(PROMPT_IDS) + 3, "prompt_tokens")


def check_several_prompts_and_answers():
    prompts = ["One, two,", "Red, green,"]
    alone = [complete(prompt=prompt).choices[0].text for prompt in prompts]
    equal([choice.text for choice in complete(prompt=prompts).choices], alone, "texts")
    answer = complete(prompt=prompts, n=2, seed=1, temperature=1)
    equal([choice.index for choice in answer.choices], [0, 1, 2, 3], "indices with n")
    chunks = list(complete(prompt=prompts, n=2, seed=1, temperature=1, stream=True))
    for index in range(4):
        choices = [choice for chunk in chunks for choice in chunk.choices]
        text = "".join(choice.text for choice in choices if choice.index == index)
        equal(text, answer.choices[index].text, f"streamed text {index}")


def check_echo_and_logprobs():
    answer = complete(echo=True, logprobs=2)
    [choice] = answer.choices
    assert choice.text.startswith(PROMPT), choice.text
    found = choice.logprobs
    equal("".join(found.tokens), choice.text, "tokens")
    equal(len(found.tokens), answer.usage.total_tokens, "number of tokens")
    equal(found.token_logprobs[0], None, "log-prob of the first token")
    assert all(logprob <= 0 for logprob in found.token_logprobs[1:])
    offsets = [0]
    for token in found.tokens[:-1]:
        offsets.append(offsets[-1] + len(token))
    equal(found.text_offset, offsets, "offsets")
    assert all(len(top) in (2, 3) for top in found.top_logprobs[1:]), found.top_logprobs


def check_echo_alone():
    answer = complete(echo=True, logprobs=1, max_tokens=0)
    equal(answer.choices[0].text, PROMPT, "text")
    equal(len(answer.choices[0].logprobs.tokens), len(PROMPT_IDS), "number of tokens")
    equal(answer.usage.completion_tokens, 0, "completion_tokens")


def check_best_of():
    answer = complete(best_of=3, n=1, temperature=1, seed=3, max_tokens=4)
    equal(len(answer.choices), 1, "number of choices")
    assert answer.usage.completion_tokens >= 4, answer.usage


def check_suffix_is_refused():
    try:
        complete(suffix="the end")
    except openai.BadRequestError as error:
        equal(error.param, "suffix", "param")
    else:
        raise AssertionError("suffix was taken")


if __name__ == "__main__":
    run_checks(globals())
