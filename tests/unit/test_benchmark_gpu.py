"""The GPU benchmark: its rehearsal runs whole, and what it computes beside timing is right."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

torch = pytest.importorskip("torch")


TABLES = {
    "commands": {"commands"},
    "kernels": {"kernels"},
    "conform": {"conformance"},
    "attention": {"decode attention", "prefill attention"},
    "end-to-end": {"engines", "end to end", "end to end, compared", "decode steps"},
    "large": {"engines", "end to end", "end to end, compared", "decode steps"},
}


@pytest.fixture
def benchmark_module(repo_root, monkeypatch):
    monkeypatch.syspath_prepend(str(repo_root / "benchmarks"))
    return importlib.import_module


@pytest.mark.parametrize(
    "parts",
    [
        "attention,end-to-end",
        pytest.param("commands,kernels,conform,large", marks=pytest.mark.slow),
    ],
)
def test_the_rehearsal_runs_every_part(parts, repo_root, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- gpu.py: begin -->\nold\n<!-- gpu.py: end -->\nafter\n")
    result = subprocess.run(
        [
            sys.executable, str(repo_root / "benchmarks" / "gpu.py"), "--rehearse",
            "--part", parts,
            "--json", str(tmp_path / "gpu.json"), "--into", str(page),
        ],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr[-4000:]
    rows = json.loads((tmp_path / "gpu.json").read_text())
    tables = {row["table"] for row in rows}
    assert tables >= {"the device"}.union(*(TABLES[part] for part in parts.split(",")))
    if "end-to-end" in parts:
        for engine in ("octavo", "transformers_batching"):
            assert any(row.get("engine") == engine and "output tok/s" in row for row in rows)
        assert any(row.get("best other") == "transformers_batching" for row in rows)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "A rehearsal" in text
    assert "### The device" in text
    assert "old" not in text


def test_runs_in_parts_are_joined(benchmark_module):
    machine = [{"table": "the device", "name": "copy", "rate": rate} for rate in (1, 2)]
    files = [[machine[0], {"table": "kernels"}], [machine[1], {"table": "end to end"}]]
    found = benchmark_module("gpu_report").joined(files)
    assert found == [machine[1], {"table": "kernels"}, {"table": "end to end"}]


def test_the_page_of_results_has_a_place_for_them(benchmark_module, repo_root, tmp_path):
    report = benchmark_module("gpu_report")
    page = tmp_path / "benchmarks.md"
    page.write_text((repo_root / "docs" / "benchmarks.md").read_text("utf-8"), "utf-8")
    report.write_into(page, [{"table": "kernels", "kernel": "a|b", "seconds": 1234.5}])
    assert "| a\\|b | 1,234 |" in page.read_text("utf-8")
    with pytest.raises(ValueError, match="to write between"):
        report.write_into(repo_root / "README.md", [])


def test_a_part_that_does_not_fit_is_reported_and_the_run_fails(repo_root):
    result = subprocess.run(
        [
            sys.executable, str(repo_root / "benchmarks" / "gpu.py"), "--device", "nonesuch",
            "--backend", "torch", "--part", "conform", "--minutes", "0.01",
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "no time was left of --minutes 0.01" in result.stdout


def test_the_workload_is_nano_vllms(benchmark_module):
    work = benchmark_module("workload").nano_vllm(256)
    # What its README gives for its benchmark.
    assert (len(work.prompts), work.num_output_tokens) == (256, 133_966)


def test_decode_steps_count_each_request_until_it_ends(benchmark_module):
    workload, floor = benchmark_module("workload"), benchmark_module("gpu_floor")
    work = workload.Work(((1,) * 10, (1,) * 20, (1,) * 5), (3, 1, 4))
    expected = []
    for step in range(1, 4):  # step 0 is prefill's token
        running = [
            len(prompt) + step
            for prompt, output_len in zip(work.prompts, work.output_lens, strict=True)
            if output_len > step
        ]
        expected.append((len(running), sum(running)))
    assert floor.decode_steps(work) == expected


@pytest.mark.parametrize(
    ("intervals", "length"),
    [
        ([], 0),
        ([(1, 3)], 2),
        ([(5, 6), (1, 3)], 3),
        ([(1, 4), (2, 3), (3, 6)], 5),  # within, and overlapping
        ([(1, 2), (2, 3)], 2),
    ],
)
def test_busy_time_counts_overlaps_once(benchmark_module, intervals, length):
    assert benchmark_module("device_busy").union_length(intervals) == length


def test_the_stand_in_for_flash_attn_attends_as_flash_attn_does(benchmark_module):
    stand_in = benchmark_module("flash_attn_stand_in")
    generator = torch.Generator().manual_seed(1)
    block_size, heads, kv_heads, dim = 4, 4, 2, 8
    cache_k, cache_v = (
        torch.randn(9, block_size, kv_heads, dim, generator=generator) for _ in range(2)
    )
    table = torch.tensor([[3, 5, -1], [8, 1, 2]], dtype=torch.int32)
    query_lens, key_lens = [3, 1], [7, 10]
    q = torch.randn(sum(query_lens), heads, dim, generator=generator)
    starts = torch.tensor([0, 3, 4], dtype=torch.int32)
    lens = torch.tensor(key_lens, dtype=torch.int32)
    found = stand_in.gathered(q, cache_k, cache_v, starts, 3, 12, lens, table, 0.3)
    for sequence, (query_len, key_len) in enumerate(zip(query_lens, key_lens, strict=True)):
        for row in range(query_len):
            sees = key_len - query_len + row + 1
            for head in range(heads):
                at = [(table[sequence, i // block_size], i % block_size) for i in range(sees)]
                keys, values = (
                    torch.stack([cache[block, offset, head // 2] for block, offset in at])
                    for cache in (cache_k, cache_v)
                )
                token = int(starts[sequence]) + row
                weights = torch.softmax(0.3 * keys @ q[token, head], 0)
                torch.testing.assert_close(found[token, head], weights @ values)


def test_nano_vllms_cache_is_read_as_octavos_kernels_have_written_it(benchmark_module, monkeypatch):
    """Both engines' layouts of the same memory, by the kernels' references; padding harms none."""
    pytest.importorskip("triton")
    stand_in = benchmark_module("flash_attn_stand_in")
    octavo = benchmark_module("flash_attn_octavo")
    cases = benchmark_module("octavo_torch.kernels.attention_cases")
    caches = benchmark_module("octavo_torch.cache_codes")
    monkeypatch.setattr(octavo, "paged_attention", cases.attention_reference)
    monkeypatch.setattr(octavo, "write_cache", caches.write_tokens)
    generator = torch.Generator().manual_seed(2)
    k, v = (torch.randn(18, 2, 8, generator=generator) for _ in range(2))
    k_by_token, v_by_token = k.view(3, 6, 2, 8), v.view(3, 6, 2, 8)
    k_by_head, v_by_head = (torch.zeros(4, 6, 2, 8) for _ in range(2))
    slots = torch.tensor([*range(18), -1, -1], dtype=torch.int32)
    padded = (torch.cat([x, torch.ones(2, 2, 8)]) for x in (k, v))
    octavo.store(*padded, k_by_head, v_by_head, slots)
    q = torch.randn(4, 4, 8, generator=generator)
    starts = torch.tensor([0, 3, 4], dtype=torch.int32)
    table = torch.tensor([[2, -1], [1, 0]], dtype=torch.int32)
    rest = (starts, 3, 12, torch.tensor([5, 11], dtype=torch.int32), table, 0.3)
    found = octavo.attend(q, k_by_head, v_by_head, *rest)
    torch.testing.assert_close(found, stand_in.gathered(q, k_by_token, v_by_token, *rest))


@pytest.mark.parametrize("query_len", [1, 5])
def test_attention_reads_back_what_was_written(benchmark_module, query_len):
    """The batch that attention is timed on: every token has a slot of its own, by its table."""
    attention, settings = benchmark_module("gpu_attention"), benchmark_module("gpu_settings")
    shape = settings.AttentionShape(3, 10)
    batch = attention.step_batch(shape, 4, query_len, seed=0)
    group = batch.groups[0]
    assert len(set(group.slots.tolist())) == 3 * query_len
    assert sorted(group.block_table.ravel().tolist()) == list(range(1, 10))
    for token, slot in enumerate(group.slots.tolist()):
        sequence, position = batch.token_seqs[token], batch.positions[token]
        assert slot == group.block_table[sequence, position // 4] * 4 + position % 4


def test_a_checkout_without_installation_has_its_plugins(repo_root):
    """Python without site-packages' knowledge of Octavo: only what gpu_packages writes."""
    code = (
        "import sys; from pathlib import Path; import gpu_packages as g;"
        "g._is_known = lambda name: False; g.provide(Path('none'));"
        "from importlib.metadata import distributions;"
        "print(*sorted(e.value for d in distributions(path=[sys.path[0], *sys.path])"
        " for e in d.entry_points if e.group == 'octavo.plugins'))"
    )
    env = dict(os.environ) | {"PYTHONPATH": str(repo_root / "benchmarks")}
    result = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert "octavo_cuda.plugin" in result.stdout, result.stderr
    assert find_spec("octavo") is not None
