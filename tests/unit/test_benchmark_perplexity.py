"""Perplexity as transformers has it, and a model that is the same with its features shuffled."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest

from octavo import LLM

WINDOWS = [[5, 9, 1, 17, 3, 3, 30, 8], [2, 31, 7, 7, 12, 4, 19, 6]]


@pytest.fixture
def benchmark_module(repo_root, monkeypatch):
    monkeypatch.syspath_prepend(str(repo_root / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def tiny_llama(tmp_path):
    """(folder, model) of two layers, two query heads to a KV head; norms' weights are not 1."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=32,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny", model


def score(perplexity, folder):
    options = {"device": "cpu", "backend": "numpy", "dtype": "float32", "quiet": True}
    llm = LLM(str(folder), max_model_len=16, kv_cache_memory_bytes=1 << 20, **options)
    try:
        return perplexity.score(llm, WINDOWS)
    finally:
        llm.loaded.close()


@pytest.mark.slow
def test_perplexity_is_transformers_loss_and_no_permutation_changes_it(
    benchmark_module, tiny_llama
):
    torch = pytest.importorskip("torch")
    folder, model = tiny_llama
    perplexity = benchmark_module("perplexity")
    with torch.no_grad():
        ids = torch.tensor(WINDOWS)
        expected = math.exp(model(ids, labels=ids).loss.item())
    plain = score(perplexity, folder)
    permuted_folder = benchmark_module("permuted_model").make_permuted_folder(folder)
    permuted = score(perplexity, permuted_folder)
    assert len(plain.log_probs) == 14
    assert plain.perplexity == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(permuted.log_probs, plain.log_probs, atol=1e-4)


def test_a_difference_is_of_common_tokens_and_its_error_of_the_differences(benchmark_module):
    perplexity = benchmark_module("perplexity")
    baseline = perplexity.Score([-1.0, -3.0, -9.0], 1)
    worse = perplexity.Score([-1.5, -3.5], 1)
    above, error = worse.difference(baseline)
    assert above == pytest.approx(math.exp(0.5) - 1)
    assert error == 0


def test_windows_are_spread_over_the_text(benchmark_module):
    perplexity = benchmark_module("perplexity")
    assert perplexity.split([*range(11)], 3, 2) == [[0, 1, 2], [5, 6, 7]]
    with pytest.raises(SystemExit, match="fewer --windows"):
        perplexity.split([*range(11)], 6, 2)


def test_prose_is_paragraphs_without_listings(benchmark_module):
    long = "Words that go on. " * 20
    page = (
        f'<body><div class="title">{long}</div><div class="para">\n\t{long}<pre>ls</pre>'
        f'<b>bold</b></div><div class="para">short</div></body>'
    )
    assert benchmark_module("prose").paragraphs(page) == [long + "bold"]
