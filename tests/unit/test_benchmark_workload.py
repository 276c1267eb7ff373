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
