"""Every kind of rope scaling against transformers, within the trained length and past it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from reference import (
    SIZES,
    load_driver,
    load_reference,
    make_reference,
    prompt,
    reference_greedy,
    reference_logits,
)

from octavo.models.registry import build_model

TRAINED_LEN = 32
HALF = SIZES["hidden_size"] // SIZES["num_attention_heads"] // 2
FACTORS = {
    "short_factor": [1.0 + 0.1 * index for index in range(HALF)],
    "long_factor": [1.5 + 0.4 * index for index in range(HALF)],
}
ORIGINAL = {"original_max_position_embeddings": TRAINED_LEN}

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, **ORIGINAL}
YARN_TUNING = {"beta_fast": 8.0, "beta_slow": 0.5, "mscale": 0.7, "mscale_all_dim": 1.2}
LONGROPE = {"rope_type": "longrope", **ORIGINAL, **FACTORS}

SCALINGS = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.5},
    "llama3": {**LLAMA3, **ORIGINAL},
    "yarn": YARN,
    "yarn-tuned": {**YARN, **YARN_TUNING, "truncate": False},
    "longrope": {**LONGROPE, "factor": 4.0},
    "longrope-attention-factor": {**LONGROPE, "attention_factor": 1.3},
}
PROMPT_LENS = {"within": 11, "crossing": TRAINED_LEN - 5, "at the edge": TRAINED_LEN, "beyond": 57}


def llama_config(scaling):
    max_len = TRAINED_LEN if scaling["rope_type"] == "dynamic" else 128
    sizes = {**SIZES, "max_position_embeddings": max_len}
    return transformers.LlamaConfig(**sizes, rope_parameters={**scaling, "rope_theta": 200.0})


@pytest.fixture(scope="module", params=SCALINGS)
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    make_reference(llama_config(SCALINGS[request.param]), path)
    return path


@pytest.mark.parametrize("prompt_len", PROMPT_LENS.values(), ids=PROMPT_LENS)
@pytest.mark.parametrize("chunks", [(), (3, 8)], ids=["one piece", "chunks"])
def test_llama(folder, prompt_len, chunks):
    """transformers prefills in one piece; so may the frequencies of a chunk not depend on it."""
    tokens = prompt(prompt_len)
    driver, _ = load_driver(folder)
    sequence = driver.start(tokens)
    logits = driver.prefill(sequence, *chunks)
    expected = reference_logits(load_reference(folder), tokens)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    greedy = reference_greedy(load_reference(folder), tokens)
    assert driver.generate(sequence, logits[-1], len(greedy)) == greedy


@torch.no_grad()
def decode_with_cache(model, tokens, num_tokens):
    """A greedy loop over the cache. Phi-3's own ``generate`` starts over where it gets long."""
    output = model(torch.tensor([tokens]), use_cache=True)
    generated = []
    for _ in range(num_tokens):
        generated.append(int(output.logits[0, -1].argmax()))
        output = model(torch.tensor([generated[-1:]]), past_key_values=output.past_key_values)
    return generated


@pytest.mark.parametrize("prompt_len", PROMPT_LENS.values(), ids=PROMPT_LENS)
@pytest.mark.parametrize("window", [None, 21])
def test_phi3(tmp_path, prompt_len, window):
    num_frequencies = HALF * 3 // 4
    factors = {name: factors[:num_frequencies] for name, factors in FACTORS.items()}
    config = transformers.Phi3Config(
        **SIZES,
        **ORIGINAL,
        sliding_window=window,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 200.0,
            "partial_rotary_factor": 0.75,
            **factors,
        },
    )
    make_reference(config, tmp_path)
    tokens = prompt(prompt_len)
    driver, _ = load_driver(tmp_path)
    sequence = driver.start(tokens)
    logits = driver.prefill(sequence, 5)
    expected = reference_logits(load_reference(tmp_path), tokens)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    greedy = decode_with_cache(load_reference(tmp_path), tokens, 32)
    assert driver.generate(sequence, logits[-1], 32) == greedy


@pytest.mark.parametrize("name", SCALINGS)
def test_scaling_matters(name, tmp_path):
    """Guards the tests above: without the scaling, the logits are different ones."""
    make_reference(llama_config(SCALINGS[name]), tmp_path)
    tokens = prompt(57)
    driver, _ = load_driver(tmp_path)
    scaled = driver.prefill(driver.start(tokens))
    driver.model = build_model(
        {**llama_config({"rope_type": "default"}).to_dict(), "model_type": "llama"}
    )
    unscaled = driver.prefill(driver.start(tokens))
    assert np.abs(scaled - unscaled).max() > 0.01
