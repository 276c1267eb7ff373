"""A real model: SmolLM2-135M-Instruct answers as transformers does on the same weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from octavo import LLM, SamplingParams
from octavo.testing.tolerances import logprob_tolerance
from octavo_cpu.native.probe import probe

NUM_TOKENS = 64
NUM_LIKELY = 20
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n",
    "Water boils at a temperature of",
    "The three laws of thermodynamics state that",
    "Dear Sir or Madam,\n\nI am writing to",
    "Q: What is the largest planet in the solar system?\nA:",
    "Il était une fois",
    "1, 1, 2, 3, 5, 8, 13,",
    "The quick brown fox jumps over the lazy dog. " * 6 + "Then it",
]
ENGINES = {
    "batched": {},
    "one at a time": {"max_num_seqs": 1},
    "no prefix cache": {"enable_prefix_caching": False},
    "chunks of 11 tokens": {"max_num_seqs": 10, "max_num_batched_tokens": 11},
    "whole prompts": {"enable_chunked_prefill": False, "max_num_batched_tokens": 8192},
    "preempted, recomputed": {"preemption_mode": "recompute", "kv_cache_memory_bytes": 15 << 20},
    "preempted, swapped": {
        "preemption_mode": "swap",
        "kv_cache_memory_bytes": 15 << 20,
        "swap_space": 0.1,
    },
}


NATIVE_ENGINES = ("chunks of 11 tokens", "preempted, swapped")
needs_kernels = pytest.mark.skipif(not probe().devices, reason=f"native: {probe().reason}")
CASES = [
    *(("numpy", name) for name in ENGINES),
    *(pytest.param("native", name, marks=needs_kernels) for name in NATIVE_ENGINES),
]


@dataclass
class Answer:
    """What transformers says to one prompt."""

    prompt_token_ids: list[int]
    token_ids: list[int]
    first_logprobs: np.ndarray  # f64[vocab], of the first token


@pytest.fixture(scope="module")
def reference(smollm2_path):
    """64 greedy tokens after each prompt, by transformers on the dequantised float32 weights."""
    folder, name = str(smollm2_path.parent), smollm2_path.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None  # as ignore_eos: go on past the end
    answers = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NUM_TOKENS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        token_ids = output.sequences[0, ids.shape[1] :].tolist()
        logprobs = torch.log_softmax(output.logits[0][0].double(), -1).numpy()
        answers.append(Answer(ids[0].tolist(), token_ids, logprobs))
    return answers


@pytest.mark.parametrize(("backend", "engine"), CASES)
def test_greedy_tokens_equal_transformers(smollm2_path, reference, backend, engine):
    options = {"backend": backend, "dtype": "float32", **ENGINES[engine]}
    llm = LLM(str(smollm2_path), device="cpu", quiet=True, **options)
    params = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True)
    for _ in range(2):  # the second time with whatever the prefix cache kept
        outputs = llm.generate(PROMPTS, params)
        for output, answer in zip(outputs, reference, strict=True):
            assert output.prompt_token_ids == answer.prompt_token_ids
            assert output.outputs[0].token_ids == answer.token_ids
    llm.loaded.engine.scheduler.check_integrity()
    preempted = sum(o.metrics.num_preemptions for o in outputs)
    assert (preempted > 0) == ("preemption_mode" in options)
    hits = sum(o.num_cached_tokens for o in outputs)
    assert (hits > 0) == options.get("enable_prefix_caching", True)
    llm.close()


@needs_kernels
def test_bfloat16_finds_the_likely_tokens_about_as_likely(smollm2_path, reference):
    """Of texts there is no such claim: two tokens about as likely change places, and all after."""
    options = {"backend": "native", "dtype": "bfloat16", "max_logprobs": NUM_LIKELY}
    llm = LLM(str(smollm2_path), device="cpu", quiet=True, **options)
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=NUM_LIKELY)
    for output, answer in zip(llm.generate(PROMPTS, params), reference, strict=True):
        (entry,) = output.outputs[0].logprobs
        errors = [each.logprob - answer.first_logprobs[token] for token, each in entry.items()]
        assert np.sqrt(np.mean(np.square(errors))) < logprob_tolerance("bfloat16")
    llm.close()


def test_the_capital_of_france(smollm2_path):
    llm = LLM(str(smollm2_path), device="cpu", quiet=True)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    output = llm.chat(messages, SamplingParams(temperature=0, max_tokens=32))[0]
    assert output.outputs[0].text == "The capital of France is Paris."
    assert output.outputs[0].finish_reason == "stop"
