"""Every family against transformers: logits, greedy tokens, chunks, mixed batches, sizes."""

from __future__ import annotations

import numpy as np
import pytest
import transformers
from harness import TinyBackend
from reference import (
    SIZES,
    load_driver,
    make_reference,
    prompt,
    reference_greedy,
    reference_logits,
)

TOLERANCE = 1e-4
PROMPT_LEN = 43
NUM_NEW_TOKENS = 32

GEMMA = {**SIZES, "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 11}
GPT2 = {
    "vocab_size": 256,
    "n_embd": 64,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 128,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}

CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "llama-tied": lambda: transformers.LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama-biases-wide-heads": lambda: transformers.LlamaConfig(
        **SIZES, attention_bias=True, mlp_bias=True, head_dim=24
    ),
    "llama-gelu": lambda: transformers.LlamaConfig(**SIZES, hidden_act="gelu"),
    "llama-multi-head": lambda: transformers.LlamaConfig(**{**SIZES, "num_key_value_heads": None}),
    "mistral": lambda: transformers.MistralConfig(**SIZES, sliding_window=13),
    "mistral-full": lambda: transformers.MistralConfig(**SIZES, sliding_window=None),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "qwen2-windows": lambda: transformers.Qwen2Config(
        **SIZES, use_sliding_window=True, sliding_window=9, max_window_layers=1
    ),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES, head_dim=24),
    "qwen3-biases-layer-types": lambda: transformers.Qwen3Config(
        **SIZES,
        attention_bias=True,
        use_sliding_window=True,
        sliding_window=10,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "gemma2": lambda: transformers.Gemma2Config(
        **GEMMA, attn_logit_softcapping=2.0, final_logit_softcapping=3.0
    ),
    "gemma2-no-caps": lambda: transformers.Gemma2Config(
        **GEMMA, attn_logit_softcapping=None, final_logit_softcapping=None
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(**{**GEMMA, "num_hidden_layers": 6}),
    "gemma3-scaled-rope": lambda: transformers.Gemma3TextConfig(
        **GEMMA,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        final_logit_softcapping=3.0,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
        },
    ),
    "phi3": lambda: transformers.Phi3Config(**SIZES, sliding_window=17),
    "phi3-partial-rotary": lambda: transformers.Phi3Config(
        **SIZES, rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.5}
    ),
    "smollm3": lambda: transformers.SmolLM3Config(**{**SIZES, "num_hidden_layers": 4}),
    "smollm3-windows": lambda: transformers.SmolLM3Config(
        **SIZES, no_rope_layers=[1, 0, 1], use_sliding_window=True, sliding_window=12
    ),
    "olmo2": lambda: transformers.Olmo2Config(**SIZES),
    "gpt2": lambda: transformers.GPT2Config(**GPT2),
    "gpt2-untied-layer-scale": lambda: transformers.GPT2Config(
        **GPT2,
        tie_word_embeddings=False,
        scale_attn_by_inverse_layer_idx=True,
        activation_function="gelu",
        n_inner=80,
    ),
}


class Case:
    """A family's reference results, computed once."""

    def __init__(self, name, folder):
        self.folder = folder
        self.reference = make_reference(CONFIGS[name](), folder)
        self.prompt = prompt(PROMPT_LEN)
        self.logits = reference_logits(self.reference, self.prompt)
        self.greedy = reference_greedy(self.reference, self.prompt, NUM_NEW_TOKENS)


@pytest.fixture(scope="module", params=CONFIGS)
def case(request, tmp_path_factory):
    return Case(request.param, tmp_path_factory.mktemp("checkpoint"))


def test_one_piece(case):
    driver, loader = load_driver(case.folder)
    sequence = driver.start(case.prompt)
    logits = driver.prefill(sequence)
    np.testing.assert_allclose(logits, case.logits, rtol=0, atol=TOLERANCE)
    assert driver.generate(sequence, logits[-1], NUM_NEW_TOKENS) == case.greedy
    assert loader.unused() == []


@pytest.mark.parametrize("chunks", [(1, 3, 17), (8, 16, 8), (7, 1, 1, 23)])
def test_chunks(case, chunks):
    driver, _ = load_driver(case.folder)
    sequence = driver.start(case.prompt)
    logits = driver.prefill(sequence, *chunks)
    np.testing.assert_allclose(logits, case.logits, rtol=0, atol=TOLERANCE)
    assert driver.generate(sequence, logits[-1], NUM_NEW_TOKENS) == case.greedy


def test_mixed_batch(case):
    """Another request decodes and ends in between; neither notices."""
    other_prompt = prompt(9, seed=1)
    other_logits = reference_logits(case.reference, other_prompt)
    driver, _ = load_driver(case.folder)
    sequence, other = driver.start(case.prompt), driver.start(other_prompt)
    first, other_first = driver.run((sequence, 5), (other, 4))
    other_rest, rest = driver.run((other, 5), (sequence, PROMPT_LEN - 5))
    np.testing.assert_allclose(np.concatenate([first, rest]), case.logits, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(
        np.concatenate([other_first, other_rest]), other_logits, rtol=0, atol=TOLERANCE
    )


def test_parameters_are_counted_from_the_config(case):
    driver, _ = load_driver(case.folder)
    assert driver.model.num_parameters == case.reference.num_parameters()


def test_sizes(case):
    driver, _ = load_driver(case.folder)
    config = case.reference.config
    assert driver.model.vocab_size == config.vocab_size
    assert driver.model.hidden_size == config.hidden_size
    assert driver.model.max_position_embeddings == config.max_position_embeddings
    assert driver.model.prefix_salt(10_000) == 0
    specs = driver.model.kv_specs("bfloat16")
    assert len(specs) == config.num_hidden_layers
    layer_types = getattr(config, "layer_types", None)
    if layer_types is None:
        uses_window = getattr(config, "sliding_window", None) is not None
        layer_types = ["sliding_attention" if uses_window else "full_attention"] * len(specs)
    for spec, layer_type in zip(specs, layer_types, strict=True):
        is_sliding = layer_type == "sliding_attention"
        assert spec.kind == ("sliding" if is_sliding else "full")
        assert spec.window == (config.sliding_window if is_sliding else None)
        assert spec.dtype == "bfloat16"


def test_quantised_backends_get_unpacked_weights_where_nothing_is_packed(case):
    driver, _ = load_driver(case.folder, backend=TinyBackend(quantization=("gguf:Q4_1",)))
    logits = driver.prefill(driver.start(case.prompt))
    np.testing.assert_allclose(logits, case.logits, rtol=0, atol=TOLERANCE)
