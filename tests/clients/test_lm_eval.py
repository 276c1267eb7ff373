"""lm-eval's local-completions against a server: the same figures as the engine gives in process."""

from __future__ import annotations

import json

import pytest

TOLERANCE = 1e-4
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def llm(smollm2_path):
    from octavo import LLM

    return LLM(str(smollm2_path), device="cpu", max_model_len=2048, quiet=True)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_folder)


@pytest.fixture
def samples(client_program, client_server, run_client, tokenizer_folder, tmp_path):
    """What lm-eval asked and was answered, by task."""
    from served_model_process import API_KEY, MODEL_NAME

    model = {
        "model": MODEL_NAME,
        "base_url": f"{client_server.url}/v1/completions",
        "tokenizer": str(tokenizer_folder),
        "num_concurrent": 2,
        "max_length": 2048,
    }
    run_client(
        [
            client_program("lm-eval", "lm_eval"),
            "run",
            *("--model", "local-completions", "--include_path", "lm_eval_tasks"),
            *("--model_args", ",".join(f"{name}={value}" for name, value in model.items())),
            *("--tasks", "octavo_capitals_choice", "octavo_capitals_generate"),
            "octavo_capitals_rolling",
            *("--batch_size", "3", "--log_samples", "--output_path", tmp_path),
        ],
        OPENAI_API_KEY=API_KEY,
        HF_HOME=str(tmp_path / "hub"),
    )
    found = {}
    for path in tmp_path.rglob("samples_*.jsonl"):
        task = path.name.removeprefix("samples_octavo_capitals_").partition("_")[0]
        found[task] = [json.loads(line) for line in path.read_text().splitlines()]
    return found


def test_local_completions_equals_the_engine(samples, llm, tokenizer):
    assert sorted(samples) == ["choice", "generate", "rolling"]
    for sample in samples["choice"]:
        for request, [[found, is_greedy]] in zip(
            sample["arguments"].values(), sample["resps"], strict=True
        ):
            expected, is_first = score(llm, tokenizer, request["arg_0"], request["arg_1"])
            assert float(found) == pytest.approx(expected, abs=TOLERANCE, rel=0)
            assert (is_greedy == "True") == is_first
    for sample in samples["generate"]:
        [request] = sample["arguments"].values()
        assert sample["resps"] == [[answer_to(llm, request["arg_0"])]]
    for sample in samples["rolling"]:
        [request] = sample["arguments"].values()
        expected = score_of_all(llm, tokenizer, request["arg_0"])
        assert float(sample["resps"][0][0]) == pytest.approx(expected, abs=TOLERANCE, rel=0)


def score(llm, tokenizer, context, continuation):
    """Log-probability of the continuation, and whether greedy decoding would write it."""
    num_context = len(tokenizer.encode(context))
    entries = prompt_logprobs(llm, tokenizer.encode(context + continuation))[num_context:]
    return sum(entry.logprob for entry in entries), all(entry.rank == 1 for entry in entries)


def score_of_all(llm, tokenizer, text):
    """Log-probability of the whole text, after the token that lm-eval puts before it."""
    token_ids = [tokenizer.bos_token_id, *tokenizer.encode(text)]
    return sum(entry.logprob for entry in prompt_logprobs(llm, token_ids)[1:])


def prompt_logprobs(llm, token_ids):
    from octavo import SamplingParams

    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    [output] = llm.generate([{"prompt_token_ids": token_ids}], params)
    entries = zip(token_ids, output.prompt_logprobs, strict=True)
    return [None if found is None else found[token_id] for token_id, found in entries]


def answer_to(llm, prompt):
    from octavo import SamplingParams

    params = SamplingParams(temperature=0, max_tokens=12, stop=["."])
    return llm.generate(prompt, params)[0].outputs[0].text
