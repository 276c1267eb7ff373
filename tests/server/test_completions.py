"""/v1/completions through OpenAI's own client, held to what the engine answers without a server."""

from __future__ import annotations

import json

import httpx
import openai
import pytest
from tiny_serving import RunningServer, assert_idle, load_tiny, tiny_options

from octavo import LLM, SamplingParams

TEXTS = ["Hello world", "日本語のテキスト", "def f(x):\n    return x ** 2"]


@pytest.fixture(scope="module")
def direct(tiny_folder):
    """The same model without a server."""
    return LLM(str(tiny_folder), **tiny_options())


@pytest.fixture(scope="module")
def shared_server(tiny_folder):
    with RunningServer(load_tiny(tiny_folder)) as server:
        yield server


@pytest.fixture
def serving(shared_server):
    """One server for all tests, idle after each."""
    yield shared_server
    assert_idle(shared_server.loaded)


def answers(direct, prompts, **params):
    outputs = direct.generate(prompts, SamplingParams(**params), use_tqdm=False)
    return [answer for output in outputs for answer in output.outputs]


def texts_of(completion):
    assert [choice.index for choice in completion.choices] == list(range(len(completion.choices)))
    return [choice.text for choice in completion.choices]


def joined(chunks):
    """What a stream comes to, choice by choice: text, log-probabilities, ids, the end."""
    choices = {}
    for chunk in chunks:
        for part in chunk.choices:
            choice = choices.setdefault(part.index, {"text": "", "logprobs": {}, "token_ids": []})
            choice["text"] += part.text
            for name, values in (part.logprobs or {}) and part.logprobs.model_dump().items():
                choice["logprobs"].setdefault(name, []).extend(values)
            choice["token_ids"] += getattr(part, "token_ids", None) or []
            assert "finish_reason" not in choice, "nothing may follow the end"
            if part.finish_reason is not None:
                choice["finish_reason"] = part.finish_reason
                choice["stop_reason"] = part.stop_reason
    return [choices[index] for index in sorted(choices)]


def whole(completion):
    return [
        {
            "text": choice.text,
            "logprobs": choice.logprobs.model_dump() if choice.logprobs else {},
            "token_ids": getattr(choice, "token_ids", None) or [],
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
        }
        for choice in completion.choices
    ]


def test_every_form_of_prompt_gets_the_engines_own_answer(client, direct):
    token_ids = [direct.get_tokenizer().encode(text) for text in TEXTS]
    wanted = answers(direct, TEXTS, temperature=0, max_tokens=24)
    forms = [(TEXTS[0], 1), (TEXTS, 3), (token_ids[0], 1), (token_ids, 3)]
    for prompt, num_prompts in forms:
        completion = client.completions.create(
            model="tiny", prompt=prompt, temperature=0, max_tokens=24
        )
        assert texts_of(completion) == [answer.text for answer in wanted[:num_prompts]]
        assert completion.usage.prompt_tokens == sum(map(len, token_ids[:num_prompts]))
        assert completion.usage.completion_tokens == 24 * num_prompts
        assert {choice.finish_reason for choice in completion.choices} == {"length"}
        assert completion.object == "text_completion"
        assert completion.id.startswith("cmpl-")


def test_what_is_left_out_or_null_is_openais_default(client, direct):
    (wanted,) = answers(direct, "Hello", max_tokens=16, seed=5)
    nothing = dict.fromkeys(["max_tokens", "n", "stop", "logprobs", "suffix", "echo", "best_of"])
    for extra in ({}, nothing):
        completion = client.completions.create(model="tiny", prompt="Hello", seed=5, **extra)
        assert texts_of(completion) == [wanted.text]
    assert completion.choices[0].logprobs is None


def test_the_model_may_be_left_out_and_must_exist(client, serving):
    response = httpx.post(f"{serving.base_url}/v1/completions", json={"prompt": "a"})
    assert response.json()["model"] == "tiny"
    with pytest.raises(openai.NotFoundError, match="tiny") as caught:
        client.completions.create(model="huge", prompt="a")
    assert caught.value.code == "model_not_found"


def test_several_sampled_answers_to_several_prompts(client, direct):
    params = {"temperature": 1.0, "top_p": 0.9, "seed": 11, "max_tokens": 12, "n": 3}
    wanted = answers(direct, TEXTS, **params)
    completion = client.completions.create(model="tiny", prompt=TEXTS, **params)
    assert texts_of(completion) == [answer.text for answer in wanted]
    assert len(set(texts_of(completion))) > 1


def test_stop_strings_and_why_an_answer_ended(client, direct):
    (free,) = answers(direct, "Hello", temperature=0, max_tokens=24)
    stop = free.text[70:73]
    for given in (stop, ["never, ever", stop]):
        completion = client.completions.create(
            model="tiny", prompt="Hello", temperature=0, max_tokens=24, stop=given
        )
        (choice,) = completion.choices
        assert choice.text == free.text[: free.text.index(stop)]
        assert (choice.finish_reason, choice.stop_reason) == ("stop", stop)
    (choice,) = client.completions.create(
        model="tiny",
        prompt="Hello",
        temperature=0,
        max_tokens=24,
        extra_body={"stop_token_ids": [free.token_ids[4]]},
    ).choices
    assert choice.stop_reason == free.token_ids[4]


def test_logprobs_are_the_engines(client, direct):
    (wanted,) = answers(direct, TEXTS[1], temperature=0, max_tokens=12, logprobs=3)
    completion = client.completions.create(
        model="tiny",
        prompt=TEXTS[1],
        temperature=0,
        max_tokens=12,
        logprobs=3,
        extra_body={"return_tokens_as_token_ids": True},
    )
    logprobs = completion.choices[0].logprobs
    assert logprobs.tokens == [f"token_id:{token_id}" for token_id in wanted.token_ids]
    assert logprobs.token_logprobs == [
        row[token_id].logprob
        for token_id, row in zip(wanted.token_ids, wanted.logprobs, strict=True)
    ]
    assert logprobs.top_logprobs == [
        {f"token_id:{token_id}": entry.logprob for token_id, entry in row.items()}
        for row in wanted.logprobs
    ]


def test_logprobs_zero_lists_the_chosen_token_alone(client):
    logprobs = (
        client.completions.create(model="tiny", prompt="Hello", logprobs=0, seed=3)
        .choices[0]
        .logprobs
    )
    assert [list(top.values()) for top in logprobs.top_logprobs] == [
        [logprob] for logprob in logprobs.token_logprobs
    ]


def test_best_of_returns_the_answers_that_are_likeliest_per_token(client, direct):
    params = {"temperature": 1.5, "seed": 2, "max_tokens": 10}
    made = answers(direct, "Hello", **params, n=6, logprobs=0)
    made.sort(key=lambda answer: answer.cumulative_logprob / len(answer.token_ids), reverse=True)
    completion = client.completions.create(model="tiny", prompt="Hello", best_of=6, n=2, **params)
    assert texts_of(completion) == [answer.text for answer in made[:2]]
    assert completion.choices[0].logprobs is None
    assert completion.usage.completion_tokens == sum(len(answer.token_ids) for answer in made)


STREAMED = {
    "plain": {"prompt": "Hello", "temperature": 0, "max_tokens": 40},
    "sampled": {"prompt": TEXTS, "seed": 4, "n": 3, "max_tokens": 17},
    "echo": {"prompt": TEXTS, "echo": True, "temperature": 0, "max_tokens": 3},
    "logprobs": {"prompt": TEXTS[1], "seed": 9, "logprobs": 2, "max_tokens": 30},
    "echo and logprobs": {"prompt": TEXTS, "echo": True, "logprobs": 1, "seed": 1, "n": 2},
    "scoring": {"prompt": TEXTS, "echo": True, "logprobs": 1, "max_tokens": 0, "n": 2},
    "half a character": {"prompt": [230], "echo": True, "temperature": 0},
    "stop": {"prompt": "Hello", "temperature": 0, "max_tokens": 40, "stop": ["es ", "zzz"]},
    "ids": {"prompt": TEXTS, "seed": 7, "extra_body": {"return_token_ids": True}},
    "structured": {
        "prompt": "Say:",
        "seed": 8,
        "max_tokens": 40,
        "extra_body": {"structured_outputs": {"choice": ["left side", "right side"]}},
    },
}


@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_comes_to_the_whole_answer(client, name):
    body = STREAMED[name]
    completion = client.completions.create(model="tiny", **body)
    chunks = list(
        client.completions.create(
            model="tiny", **body, stream=True, stream_options={"include_usage": True}
        )
    )
    assert joined(chunks) == whole(completion)
    *parts, last = chunks
    assert last.choices == []
    assert all(part.usage is None for part in parts)
    usage, whole_usage = last.usage.model_dump(), completion.usage.model_dump()
    for counts in (usage, whole_usage):
        counts.pop("prompt_tokens_details")  # the second time, more of the prompt is known
    assert usage == whole_usage


def test_without_stream_options_no_chunk_has_usage(client):
    chunks = list(client.completions.create(model="tiny", prompt="Hello", stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_continuous_usage_counts_up_to_the_last(client):
    chunks = list(
        client.completions.create(
            model="tiny",
            prompt=TEXTS,
            n=2,
            seed=1,
            stream=True,
            stream_options={"include_usage": True, "continuous_usage_stats": True},
        )
    )
    counts = [chunk.usage.completion_tokens for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == 6 * 16
    assert len({chunk.usage.prompt_tokens for chunk in chunks}) == 1


def test_a_stream_is_sent_in_events_that_end_with_done(serving):
    body = {"prompt": "Hello", "stream": True, "max_tokens": 3}
    response = httpx.post(f"{serving.base_url}/v1/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, end, rest = response.text.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    assert all(json.loads(event.removeprefix("data: "))["choices"] for event in events)


def test_token_ids_and_prompt_logprobs_come_if_asked_for(client, direct):
    token_ids = direct.get_tokenizer().encode(TEXTS[2])
    params = SamplingParams(temperature=0, max_tokens=4, prompt_logprobs=2)
    (wanted,) = direct.generate(TEXTS[2], params, use_tqdm=False)
    (choice,) = client.completions.create(
        model="tiny",
        prompt=TEXTS[2],
        temperature=0,
        max_tokens=4,
        extra_body={"return_token_ids": True, "prompt_logprobs": 2},
    ).choices
    assert choice.prompt_token_ids == token_ids
    assert choice.token_ids == wanted.outputs[0].token_ids
    assert choice.prompt_logprobs[0] is None
    for row, wanted_row in zip(choice.prompt_logprobs[1:], wanted.prompt_logprobs[1:], strict=True):
        assert row == {
            str(token_id): {
                "logprob": entry.logprob,
                "rank": entry.rank,
                "decoded_token": entry.decoded_token,
            }
            for token_id, entry in wanted_row.items()
        }


def test_cached_tokens_are_counted(client):
    body = {"model": "tiny", "prompt": [[*range(10, 74)]], "max_tokens": 1}
    first, second = (client.completions.create(**body).usage for _ in range(2))
    assert first.prompt_tokens_details.cached_tokens == 0
    assert 0 < second.prompt_tokens_details.cached_tokens < 64


def test_vllms_parameters_reach_the_engine(client, direct):
    eos = direct.get_tokenizer().eos_token_id
    biased = {"logit_bias": {str(eos): 100.0}}
    ended = client.completions.create(model="tiny", prompt="a", temperature=0, **biased)
    assert (ended.choices[0].text, ended.choices[0].finish_reason) == ("", "stop")
    assert ended.choices[0].stop_reason is None
    for extra in ({"ignore_eos": True}, {"min_tokens": 16}):
        going_on = client.completions.create(
            model="tiny", prompt="a", temperature=0, **biased, extra_body=extra
        )
        assert going_on.usage.completion_tokens == 16
    only = client.completions.create(
        model="tiny",
        prompt="a",
        extra_body={"allowed_token_ids": [70], "priority": 3, "cache_salt": "x", "top_k": 5},
    )
    assert only.choices[0].text == direct.get_tokenizer().decode([70]) * 16


def test_an_answer_can_be_forced_into_a_form(client):
    schema = {"enum": ["north", "south"]}
    forms = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    completion = client.completions.create(
        model="tiny",
        prompt="Say:",
        max_tokens=200,
        temperature=0,
        extra_body={"response_format": forms},
    )
    assert json.loads(completion.choices[0].text) in schema["enum"]


def test_what_clients_send_by_habit_changes_nothing(client, direct):
    (wanted,) = answers(direct, "Hello", temperature=0, max_tokens=5)
    habits = {
        "use_beam_search": False,
        "length_penalty": 1.0,
        "early_stopping": False,
        "max_completion_tokens": 5,
        "repetition_penalty": 1.0,
        "logprobs": None,
        "request_id": "mine-1",
    }
    completion = client.completions.create(
        model="tiny",
        prompt="Hello",
        temperature=0,
        max_tokens=5,
        user="somebody",
        suffix="",
        extra_body=habits,
    )
    assert texts_of(completion) == [wanted.text]
    assert completion.id == "cmpl-mine-1"


def test_the_id_of_an_answer_is_the_clients_even_if_two_choose_the_same(serving):
    headers = {"X-Request-Id": "twice"}
    body = {"prompt": "a", "stream": True, "max_tokens": 200, "ignore_eos": True}
    url = f"{serving.base_url}/v1/completions"
    with httpx.stream("POST", url, json=body, headers=headers) as first:
        second = httpx.post(url, json={"prompt": "a"}, headers=headers)
        assert second.json()["id"] == "cmpl-twice"
        assert first.status_code == 200


def test_a_client_that_leaves_frees_its_blocks(serving):
    body = {"prompt": TEXTS, "stream": True, "max_tokens": 900, "ignore_eos": True, "n": 2}
    with httpx.stream("POST", f"{serving.base_url}/v1/completions", json=body) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        assert serving.loaded.engine.num_unfinished_requests == len(TEXTS)
    assert_idle(serving.loaded)
    assert serving.loaded.engine.stats.num_generated_tokens < 6 * 900


def test_a_client_that_does_not_wait_for_a_whole_answer_frees_its_blocks(serving):
    body = {"prompt": TEXTS, "max_tokens": 1000, "ignore_eos": True, "n": 4}
    before = serving.loaded.engine.stats.num_generated_tokens
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{serving.base_url}/v1/completions", json=body, timeout=0.1)
    assert_idle(serving.loaded)
    assert serving.loaded.engine.stats.num_generated_tokens - before < 12 * 900


def test_a_truncated_prompt_is_echoed_as_it_was_taken(client, direct):
    tokenizer = direct.get_tokenizer()
    tail = tokenizer.encode(TEXTS[2])[-3:]
    (choice,) = client.completions.create(
        model="tiny",
        prompt=TEXTS[2],
        echo=True,
        max_tokens=0,
        logprobs=0,
        extra_body={"truncate_prompt_tokens": 3},
    ).choices
    assert choice.text == tokenizer.decode(tail)
    assert len(choice.logprobs.tokens) == 3


def test_special_tokens_of_a_prompt_of_ids_are_shown_and_an_answers_only_if_asked(client, direct):
    end = direct.get_tokenizer().token_to_id("<|im_end|>")
    bias = {str(end): 100.0}
    for skips, wanted in [(True, "<|im_end|>"), (False, "<|im_end|>" * 4)]:
        (choice,) = client.completions.create(
            model="tiny",
            prompt=[end],
            echo=True,
            max_tokens=3,
            logit_bias=bias,
            extra_body={"ignore_eos": True, "skip_special_tokens": skips},
        ).choices
        assert choice.text == wanted


def test_a_model_without_a_tokenizer_takes_and_gives_token_ids(tiny_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((tiny_folder / "config.json").read_bytes())
    with RunningServer(load_tiny(tmp_path)) as server:
        url = f"{server.base_url}/v1/completions"
        body = {
            "prompt": [5, 6, 7],
            "return_token_ids": True,
            "logprobs": 1,
            "echo": True,
            "max_tokens": 2,
            "temperature": 0,
        }
        (choice,) = httpx.post(url, json=body).json()["choices"]
        assert choice["text"] == ""
        assert len(choice["token_ids"]) == 2
        tokens = choice["logprobs"]["tokens"]
        assert tokens == [f"token_id:{i}" for i in [5, 6, 7, *choice["token_ids"]]]
        refused = httpx.post(url, json={"prompt": "text"})
        assert refused.status_code == 400
        assert "tokenizer" in refused.json()["error"]["message"]
