"""The benchmarks' shared parts: the seeded work, and ratios taken within rounds."""

from __future__ import annotations

import importlib

import pytest


@pytest.fixture
def benchmark_module(repo_root, monkeypatch):
    monkeypatch.syspath_prepend(str(repo_root / "benchmarks"))
    return importlib.import_module


def test_the_batch_is_the_published_one(benchmark_module):
    work = benchmark_module("workload").batch(0)
    assert (len(work.prompts), work.num_input_tokens, work.num_output_tokens) == (
        64,
        19_455,
        10_721,
    )


def test_later_rounds_keep_the_lengths_and_change_the_tokens(benchmark_module):
    batch = benchmark_module("workload").batch
    first, second = batch(0), batch(1)
    assert first.output_lens == second.output_lens
    assert [*map(len, first.prompts)] == [*map(len, second.prompts)]
    assert not set(first.prompts) & set(second.prompts)
    assert second == batch(1)


def test_a_fraction_takes_the_first_requests(benchmark_module):
    batch = benchmark_module("workload").batch
    assert batch(0, 0.125).prompts == batch(0).prompts[:8]


def test_ratios_are_taken_within_rounds(benchmark_module):
    # The machine is ten times slower in the second round: no round shows a ratio but 2 or 4.
    rounds = [
        {
            "a": {"decode_tok_s": 200.0},
            "b": {"decode_tok_s": 100.0},
            "machine": {"read_gb_per_s": 30.0, "gemm_gflop_per_s": 100.0},
        },
        {
            "a": {"decode_tok_s": 40.0},
            "b": {"decode_tok_s": 10.0},
            "machine": {"read_gb_per_s": 3.0, "gemm_gflop_per_s": 10.0},
        },
    ]
    text = benchmark_module("report").table(rounds, ["a", "b"], {"a": 64, "b": 60})
    assert "| decode, 1 request, tok/s | 120.0 | 55.0 | 3.00 (2.00 to 4.00) |" in text
    assert "prefill" not in text
    assert "b: 60 of 64 greedy tokens as a's" in text


SMOLLM2 = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
}


def test_the_floors_are_the_models_own_numbers(benchmark_module):
    work = benchmark_module("model_work").ModelWork.of_config(SMOLLM2)
    assert work.bf16_weight_bytes == 2 * (
        30 * (576 * 960 + 576 * 576 + 3 * 576 * 1536) + 28_311_552
    )
    assert work.all_weights_flop(10) == 10 * work.bf16_weight_bytes
    assert work.kv_bytes(1000, "auto") == 1000 * 30 * 2 * 3 * 64 * 2
    assert work.kv_bytes(1000, "int8") == 1000 * 30 * 2 * 3 * (64 + 4)
    # One token attends to itself: two products over all heads, beside every weight once.
    assert work.prefill_flop(1) == work.all_weights_flop(1) + 4 * 30 * 576


def test_an_aim_is_held_against_the_median_of_shares_within_turns(benchmark_module):
    aims = benchmark_module("native_aims")
    work = benchmark_module("model_work").ModelWork.of_config(SMOLLM2)
    per_token_s = work.bf16_weight_bytes / 40e9
    rounds = [
        {"octavo": {"decode_tok_s": share / per_token_s, aims.READ: 40.0}}
        for share in (0.80, 0.90, 0.95)
    ]
    for record in rounds:
        record["octavo"]["prefill_1024_tok_s"] = 1.0
    text = aims.aims_table({"single": rounds, "batch": []}, work, 96_000_000)
    assert "| 0.90 (0.80 to 0.95) | 0.85 | yes |" in text
    assert "over vLLM" not in text
