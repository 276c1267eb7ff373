"""Prompts scored by /v1/completions, as lm-eval asks for it, held to transformers."""

from __future__ import annotations

import httpx
import pytest
import torch
import transformers
from tiny_serving import RunningServer, assert_idle, load_tiny

from tiny_tokenizers import save_folder, train_byte_level

TOLERANCE = 1e-4  # of a log-probability in float32
TEXTS = ["Hello world, don't stop.", "日本語のテキストと漢字", "Voix ambiguë d'un cœur"]


@pytest.fixture(scope="module")
def oracle():
    """A Llama of random weights, in transformers."""
    torch.manual_seed(3)
    tokenizer = train_byte_level()
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,  # sharp enough that ranks are clear
    )
    return transformers.LlamaForCausalLM(config).eval(), tokenizer


@pytest.fixture(scope="module")
def server(oracle, tmp_path_factory):
    model, tokenizer = oracle
    folder = save_folder(tmp_path_factory.mktemp("scored"), tokenizer)
    model.save_pretrained(folder)
    options = {"load_format": "safetensors", "max_model_len": 512, "generation_config": "octavo"}
    with RunningServer(load_tiny(folder, **options)) as running:
        yield running


@pytest.fixture
def complete(server):
    def post(**body):
        response = httpx.post(f"{server.base_url}/v1/completions", json=body)
        assert response.status_code == 200, response.text
        return response.json()["choices"]

    yield post
    assert_idle(server.loaded)


def log_probabilities(oracle, token_ids):
    """f32[len, vocabulary]: row i is about token i + 1."""
    with torch.no_grad():
        logits = oracle[0](torch.tensor([token_ids])).logits[0]
    return torch.log_softmax(logits.float(), dim=-1)


def lm_eval_reads(choice, context_len):
    """(sum of log-probabilities, whether greedy) of a continuation, by lm-eval's own arithmetic.

    Its LocalCompletionsAPI.parse_logprobs: the last token is the generated one, and left out.
    """
    logprobs = choice["logprobs"]["token_logprobs"][context_len:-1]
    tops = choice["logprobs"]["top_logprobs"][context_len:-1]
    is_greedy = all(
        logprob == max(top.values()) for logprob, top in zip(logprobs, tops, strict=True)
    )
    return sum(logprobs), is_greedy


def test_what_lm_eval_sends_is_scored_as_transformers_scores_it(oracle, complete):
    prompts = [oracle[1].encode(text).ids for text in TEXTS]
    # One whose end is greedy, so that lm-eval must find it so.
    greedy = prompts[0][:4]
    for _ in range(3):
        greedy = [*greedy, int(log_probabilities(oracle, greedy)[-1].argmax())]
    prompts.append(greedy)
    choices = complete(
        model="tiny",
        prompt=prompts,
        temperature=0,
        max_tokens=1,
        logprobs=1,
        seed=1234,
        echo=True,
    )
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    for prompt, choice in zip(prompts, choices, strict=True):
        rows = log_probabilities(oracle, prompt)
        context_len = len(prompt) - 3
        positions = range(context_len - 1, len(prompt) - 1)
        total, is_greedy = lm_eval_reads(choice, context_len)
        assert total == pytest.approx(
            sum(float(rows[i, prompt[i + 1]]) for i in positions), abs=TOLERANCE
        )
        assert is_greedy == all(int(rows[i].argmax()) == prompt[i + 1] for i in positions)
    assert lm_eval_reads(choices[3], len(greedy) - 3)[1]


def test_echoed_logprobs_are_transformers(oracle, complete):
    text = TEXTS[1]
    token_ids = oracle[1].encode(text).ids
    (choice,) = complete(
        prompt=text,
        echo=True,
        logprobs=5,
        max_tokens=3,
        temperature=0,
        return_tokens_as_token_ids=True,
        return_token_ids=True,
    )
    all_ids = token_ids + choice["token_ids"]
    rows = log_probabilities(oracle, all_ids)
    logprobs = choice["logprobs"]
    assert choice["prompt_token_ids"] == token_ids
    assert logprobs["tokens"] == [f"token_id:{token_id}" for token_id in all_ids]
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    for i, token_id in enumerate(all_ids[1:]):
        assert logprobs["token_logprobs"][i + 1] == pytest.approx(
            float(rows[i, token_id]), abs=TOLERANCE
        )
        values, indices = rows[i].topk(5)
        wanted = {f"token_id:{int(j)}": float(v) for j, v in zip(indices, values, strict=True)}
        wanted[f"token_id:{token_id}"] = float(rows[i, token_id])
        assert logprobs["top_logprobs"][i + 1] == pytest.approx(wanted, abs=TOLERANCE)


def test_with_no_tokens_to_make_only_the_prompt_is_scored(oracle, complete):
    longer = complete(prompt=TEXTS, echo=True, logprobs=2, max_tokens=1, temperature=0)
    choices = complete(prompt=TEXTS, echo=True, logprobs=2, max_tokens=0)
    for text, choice, with_one_more in zip(TEXTS, choices, longer, strict=True):
        assert choice["text"] == text
        assert choice["finish_reason"] == "length"
        for name, values in choice["logprobs"].items():
            assert len(values) == len(oracle[1].encode(text).ids)
            assert values == with_one_more["logprobs"][name][:-1]


def test_an_answer_of_no_tokens_is_empty_and_costs_none(server):
    body = {"prompt": "Hello", "max_tokens": 0, "logprobs": 1, "n": 2}
    answer = httpx.post(f"{server.base_url}/v1/completions", json=body).json()
    assert [choice["text"] for choice in answer["choices"]] == ["", ""]
    assert answer["choices"][0]["logprobs"]["tokens"] == []
    assert answer["usage"]["completion_tokens"] == 0


def test_prompt_logprobs_and_echo_may_differ_in_number(oracle, complete):
    (choice,) = complete(prompt=TEXTS[0], echo=True, logprobs=1, prompt_logprobs=4, max_tokens=1)
    assert all(len(top) <= 2 for top in choice["logprobs"]["top_logprobs"][1:])
    rows = log_probabilities(oracle, oracle[1].encode(TEXTS[0]).ids)
    for i, row in enumerate(choice["prompt_logprobs"][1:]):
        likeliest = {str(int(j)) for j in rows[i].topk(4).indices}
        assert likeliest <= set(row)
        assert len(row) <= 5
