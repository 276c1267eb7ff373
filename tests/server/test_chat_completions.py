"""/v1/chat/completions through OpenAI's own client: prompts, answers, streams, refusals."""

from __future__ import annotations

import httpx
import openai
import pytest
from chat_client import HELLO, ask, joined, post
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_serving import RunningServer, assert_idle, load_tiny, tiny_options

from octavo import LLM, SamplingParams


@pytest.fixture(scope="module")
def shared_server(tiny_folder):
    with RunningServer(load_tiny(tiny_folder)) as server:
        yield server


@pytest.fixture
def serving(shared_server):
    """One server for all tests, idle after each."""
    yield shared_server
    assert_idle(shared_server.loaded)


CHATS = [
    HELLO,
    [{"role": "system", "content": "Be brief."}, *HELLO, {"role": "assistant", "content": "Hi"}],
    [
        {
            "role": "user",
            "content": [{"type": "text", "text": "日本"}, {"type": "text", "text": "語"}],
        }
    ],
]


@pytest.mark.parametrize("messages", CHATS)
def test_a_prompt_has_the_tokens_that_transformers_gives_it(client, tiny_folder, messages):
    from transformers import PreTrainedTokenizerFast

    oracle = PreTrainedTokenizerFast.from_pretrained(str(tiny_folder))
    flat = [
        {**m, "content": "\n".join(p["text"] for p in m["content"])}
        if isinstance(m["content"], list)
        else m
        for m in messages
    ]
    ids = oracle.apply_chat_template(flat, add_generation_prompt=True, tokenize=True)
    ids = ids["input_ids"] if hasattr(ids, "keys") else ids
    answer = ask(client, messages=messages, max_tokens=1, extra_body={"return_token_ids": True})
    assert answer.model_extra["prompt_token_ids"] == list(ids)
    assert answer.usage.prompt_tokens == len(ids)


def test_an_answer_is_the_engine_s_own(client, tiny_folder):
    llm = LLM(str(tiny_folder), **tiny_options())
    params = SamplingParams(max_tokens=12, seed=7, temperature=0.8, top_p=0.9)
    [expected] = llm.chat(HELLO, params, use_tqdm=False)
    answer = ask(client, max_tokens=12, temperature=0.8, top_p=0.9)
    [choice] = answer.choices
    assert choice.message.content == expected.outputs[0].text
    assert choice.finish_reason == expected.outputs[0].finish_reason
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")


def test_a_stream_comes_to_the_whole_answer(client):
    options = {"max_tokens": 10, "n": 3, "logprobs": True, "top_logprobs": 2}
    whole = ask(client, **options)
    streamed = joined(ask(client, stream=True, **options))
    assert sorted(streamed) == [0, 1, 2]
    for choice in whole.choices:
        part = streamed[choice.index]
        assert part["content"] == choice.message.content
        assert part["tokens"] == choice.logprobs.content
        assert part["end"] == choice.finish_reason


def test_the_chunks_have_openai_s_shape(client):
    chunks = list(ask(client, stream=True, max_tokens=5, stream_options={"include_usage": True}))
    first, *middle, end, usage = chunks
    assert first.choices[0].delta.role == "assistant"
    assert first.choices[0].delta.content == ""
    assert all(chunk.choices[0].finish_reason is None for chunk in [first, *middle])
    assert end.choices[0].finish_reason == "length"
    assert usage.choices == []
    assert usage.usage.completion_tokens == 5
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({(chunk.id, chunk.created, chunk.object) for chunk in chunks}) == 1
    assert first.object == "chat.completion.chunk"


def test_usage_can_come_with_every_chunk(client):
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = ask(client, stream=True, max_tokens=5, stream_options=options)
    counts = [chunk.usage.completion_tokens for chunk in chunks]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 5)


def test_logprobs_belong_to_the_tokens_of_the_message(client):
    answer = ask(client, max_tokens=12, logprobs=True, top_logprobs=3)
    [choice] = answer.choices
    tokens = choice.logprobs.content
    text = b"".join(bytes(token.bytes) for token in tokens).decode("utf-8", "replace")
    assert text == choice.message.content
    for token in tokens:
        written_out = "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.bytes)
        whole = bytes(token.bytes).decode("utf-8", "ignore")
        assert token.token in (whole, written_out) or not token.bytes
        values = [top.logprob for top in token.top_logprobs]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert token.logprob <= values[0]


def test_the_newer_name_of_the_limit(client, serving):
    assert ask(client, max_completion_tokens=3).usage.completion_tokens == 3
    refused = post(serving, max_tokens=3, max_completion_tokens=4)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "max_tokens"


def test_a_last_message_can_be_gone_on_with_and_repeated(serving):
    messages = [*HELLO, {"role": "assistant", "content": "I am"}]
    going_on = {"add_generation_prompt": False, "continue_final_message": True}
    answer = post(serving, messages=messages, echo=True, seed=1, **going_on).json()
    assert answer["choices"][0]["message"]["content"].startswith("I am")
    open_prompt = post(serving, messages=messages).json()["usage"]["prompt_tokens"]
    assert answer["usage"]["prompt_tokens"] < open_prompt


def test_roles_and_contents_of_every_kind(serving):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": ["a", {"type": "input_text", "text": "b"}], "name": "ada"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}},
        {"role": "function", "name": "f", "content": "3"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "refusal": None},
        *HELLO,
    ]
    shown = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
    answer = post(serving, messages=messages, chat_template=shown, return_token_ids=True)
    assert answer.status_code == 200, answer.text
    ids = answer.json()["prompt_token_ids"]
    prompt = serving.loaded.tokenizer.decode(ids)
    assert prompt == (
        "system:Be brief.;user:a\nb;assistant:;tool:2;assistant:;tool:3;assistant:no;user:Hello;"
    )


WITHOUT_EFFECT = {
    "user": "ada",
    "metadata": {"a": "b"},
    "store": False,
    "service_tier": "auto",
    "safety_identifier": "x",
    "prompt_cache_key": "x",
    "verbosity": "low",
    "tools": [],
    "modalities": ["text"],
}


def test_what_clients_send_by_habit_changes_nothing(serving):
    plain, more = post(serving, seed=3), post(serving, seed=3, **WITHOUT_EFFECT)
    assert more.status_code == 200, more.text
    assert more.json()["choices"] == plain.json()["choices"]


REFUSED = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "bard", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0]",
    ),
    ({"temperatur": 1}, "temperatur"),
    ({"temperature": 3}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"n": 0}, "n"),
    ({"n": 1000}, "n"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 9999}, "logprobs"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "prompt_logprobs": 1}, "prompt_logprobs"),
    ({"store": True}, "store"),
    ({"audio": {"voice": "x"}}, "audio"),
    ({"modalities": ["audio"]}, "modalities"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"chat_template": "{% if %}"}, "chat_template"),
    ({"chat_template": "{{ raise_exception('no') }}"}, "chat_template"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    ({"continue_final_message": True, "add_generation_prompt": True}, "messages"),
    ({"messages": [{"role": "user", "content": "long " * 2000}]}, None),
]


@pytest.mark.parametrize(("body", "param"), REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_names_the_parameter(serving, body, param, stream):
    response = post(serving, **{"stream": stream, **body} if "stream_options" not in body else body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as refused:
        ask(client, model="nobody")
    assert refused.value.code == "model_not_found"


def test_a_client_that_leaves_frees_its_blocks(serving):
    body = {"messages": HELLO, "stream": True, "n": 4, "ignore_eos": True}
    url = f"{serving.base_url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=30) as response:
        next(response.iter_bytes())
    assert_idle(serving.loaded)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-1, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
NAMES = [
    "messages", "tools", "tool_choice", "response_format", "functions", "function_call", "stop",
    "logit_bias", "stream", "stream_options", "structured_outputs", "chat_template", "documents",
    "chat_template_kwargs", "n", "temperature", "seed", "model", "allowed_token_ids", "echo",
]  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(NAMES), JSON_VALUES, max_size=4))
def test_no_body_is_a_fault_of_the_server(serving, body):
    assert post(serving, **body).status_code < 500
