"""One source, three array libraries: the same model on NumPy, torch and compiled by JAX."""

from __future__ import annotations

import array_api_compat.torch as torch_namespace
import jax
import jax.numpy as jax_namespace
import numpy as np
import pytest
import torch
import transformers
from harness import TinyBackend
from reference import SIZES, load_driver, make_reference, prompt

from octavo.step_trees import each_step_tree

CONFIGS = {
    "llama-dynamic-rope": lambda: transformers.LlamaConfig(
        **{**SIZES, "num_hidden_layers": 2, "max_position_embeddings": 32},
        rope_parameters={"rope_type": "dynamic", "factor": 2.0},
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **{**SIZES, "num_hidden_layers": 2},
        head_dim=16,
        sliding_window=11,
        layer_types=["sliding_attention", "full_attention"],
        attn_logit_softcapping=5.0,
        final_logit_softcapping=3.0,
    ),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=256, n_embd=64, n_layer=2, n_head=4, n_positions=128
    ),
}


@pytest.fixture(scope="module", autouse=True)
def registered_trees():
    """What a JAX backend does at load: weights, caches and batches are arguments of a jit."""
    each_step_tree(jax.tree_util.register_dataclass)


@pytest.fixture(scope="module", params=CONFIGS)
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    make_reference(CONFIGS[request.param](), folder)
    return folder


def torch_array(array):
    return torch.from_numpy(np.array(array))


BACKENDS = {
    "torch": {"backend": TinyBackend(torch_namespace, torch_array)},
    "jax": {"backend": TinyBackend(jax_namespace, jax_namespace.asarray), "compile": jax.jit},
}


@pytest.mark.parametrize("name", BACKENDS)
def test_other_namespaces_compute_what_numpy_does(checkpoint, name):
    tokens = prompt(27)
    results = []
    for options in ({}, BACKENDS[name]):
        driver, _ = load_driver(checkpoint, num_blocks=8, **options)
        sequence = driver.start(tokens)
        logits = driver.prefill(sequence, 13, 13)  # then 1, like decoding: two shapes to compile
        results.append((logits, driver.generate(sequence, logits[-1], 16)))
    (expected, expected_tokens), (logits, generated) = results
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    assert generated == expected_tokens
