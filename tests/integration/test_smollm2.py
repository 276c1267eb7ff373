"""A real model: SmolLM2-135M-Instruct answers as transformers does on the same weights."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from octavo import LLM, SamplingParams

NUM_TOKENS = 64
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
        )
        answers.append((ids[0].tolist(), output[0, ids.shape[1] :].tolist()))
    return answers


@pytest.mark.parametrize("options", ENGINES.values(), ids=ENGINES.keys())
def test_greedy_tokens_equal_transformers(smollm2_path, reference, options):
    llm = LLM(str(smollm2_path), device="cpu", backend="numpy", quiet=True, **options)
    params = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True)
    for _ in range(2):  # the second time with whatever the prefix cache kept
        outputs = llm.generate(PROMPTS, params)
        assert [(o.prompt_token_ids, o.outputs[0].token_ids) for o in outputs] == reference
    llm.loaded.engine.scheduler.check_integrity()
    preempted = sum(o.metrics.num_preemptions for o in outputs)
    assert (preempted > 0) == ("preemption_mode" in options)
    hits = sum(o.num_cached_tokens for o in outputs)
    assert (hits > 0) == options.get("enable_prefix_caching", True)


def test_the_capital_of_france(smollm2_path):
    llm = LLM(str(smollm2_path), device="cpu", quiet=True)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    output = llm.chat(messages, SamplingParams(temperature=0, max_tokens=32))[0]
    assert output.outputs[0].text == "The capital of France is Paris."
    assert output.outputs[0].finish_reason == "stop"
