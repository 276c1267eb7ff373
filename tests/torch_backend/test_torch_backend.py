"""The backend `torch`: its answers beside NumPy's, its options, and what the suite cannot reach."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import octavo_torch.attention
import octavo_torch.plugin
from octavo import LLM, SamplingParams
from octavo.api import AttentionParams, DeviceError, GroupBatch, KVSpec, StepBatch, UsageError
from octavo.testing.tiny_models import MAX_LEN, TINY_MODELS, VOCAB_SIZE
from octavo_torch.cache_codes import read_blocks, write_tokens
from octavo_torch.caches import TorchCache, copy_blocks, make_cache
from octavo_torch.cpu import TorchCpuBackend
from octavo_torch.dtypes import numpy_dtype
from octavo_torch.plan import make_plans
from op_suite import ATTENTION_CHECKS, run_op_check, subject_over

FAMILIES = {model.config["model_type"]: model.config for model in TINY_MODELS.values()}
RANDOM = np.random.default_rng(0)
PROMPTS = [RANDOM.integers(0, VOCAB_SIZE, length).tolist() for length in (1, 5, 17, 30)]
CPU = torch.device("cpu")


def greedy(folder, backend):
    llm = LLM(
        str(folder),
        device="cpu",
        backend=backend,
        dtype="float32",
        load_format="dummy",
        max_model_len=MAX_LEN // 2,
        max_num_seqs=4,
        max_num_batched_tokens=24,  # the longest prompt comes in two chunks
        kv_cache_memory_bytes=1 << 22,
        quiet=True,
    )
    try:
        prompts = [{"prompt_token_ids": prompt} for prompt in PROMPTS]
        params = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True)
        outputs = llm.generate(prompts, params, use_tqdm=False)
    finally:
        llm.loaded.close()
    return [output.outputs[0].token_ids for output in outputs]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_numpy(family, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(FAMILIES[family]), "utf-8")
    tokens = greedy(tmp_path, "torch")
    assert tokens == greedy(tmp_path, "numpy")
    assert len({tuple(each) for each in tokens}) > 1


@pytest.mark.parametrize("check", ATTENTION_CHECKS)
def test_attention_is_the_same_in_many_turns(check, monkeypatch):
    """Decodes one by one, as long contexts have them; the suite's are short and go together."""
    monkeypatch.setattr(octavo_torch.attention, "_GATHERED_BYTES", 1)
    run_op_check(subject_over(TorchCpuBackend(0, {})), check, quick=True)


class BoundedBackend(TorchCpuBackend):
    """With bounds for the host's numbers wherever every sequence has one token, as graphs have."""

    def plan(self, batch, block_size):
        plans = super().plan(batch, block_size)
        return tuple(map(within_bounds, plans)) if plans[0].max_query_len <= 1 else plans


def within_bounds(plan):
    most = plan.block_table.shape[1] * plan.block_size
    return replace(plan, max_seq_len=most, host_query_start=(), host_seq_lens=())


@pytest.mark.parametrize("check", ATTENTION_CHECKS)
def test_attention_is_the_same_within_bounds(check):
    run_op_check(subject_over(BoundedBackend(0, {})), check, quick=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"thraeds": 2}, "'torch' has no option 'thraeds'. Did you mean 'threads'"),
        ({"threads": 0}, "Option threads of backend 'torch' is 0; expected a whole number"),
        ({"threads": True}, "is True; expected"),
        ({"threads": "2"}, "is '2'; expected"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(UsageError) as refused:
        TorchCpuBackend(0, options)
    assert said in str(refused.value)


def test_threads_are_torch_s_while_the_backend_is_loaded():
    before = torch.get_num_threads()
    backend = TorchCpuBackend(0, {"threads": before + 1})
    assert backend.threads == torch.get_num_threads() == before + 1
    backend.close()
    assert torch.get_num_threads() == before


def test_there_is_one_device():
    with pytest.raises(DeviceError, match="no device cpu:1"):
        TorchCpuBackend(1, {})


def test_without_torch_the_probe_says_what_to_install(monkeypatch):
    monkeypatch.setattr(octavo_torch.plugin, "find_spec", lambda name: None)
    found = octavo_torch.plugin._probe()
    assert (found.devices, found.reason) == ((), "torch is not installed")
    assert "pip install" in found.install


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_a_scale_for_each_head_widens_an_8_bit_float(dtype):
    """Rounded as ml_dtypes rounds, after the division; beyond the range both saturate."""
    kv_heads, head_dim, block_size = 2, 8, 16
    cache = make_cache(KVSpec("full", kv_heads, head_dim, dtype), 4, block_size, CPU)
    scales = torch.tensor([4.0, 1.0])
    cache = TorchCache(cache.k, cache.v, scales, scales)
    numbers = torch.from_numpy(RANDOM.normal(0, 900, (5, kv_heads, head_dim)).astype(np.float32))
    slots = torch.tensor([16, 17, 18, 63, 40], dtype=torch.int32)
    cache = write_tokens(cache, numbers, -numbers, slots)

    blocks = torch.tensor([[1, 2, 3]], dtype=torch.int32)
    read = read_blocks(cache.k, cache.k_scale, blocks, torch.float32)
    read = read[0].transpose(0, 1)[slots.long() - 16].numpy()
    info = torch.finfo(getattr(torch, dtype))
    divided = np.clip(numbers.numpy() / scales.numpy()[:, None], info.min, info.max)
    expected = divided.astype(numpy_dtype(dtype)).astype(np.float32)
    np.testing.assert_array_equal(read, expected * scales.numpy()[:, None])


def test_scales_go_with_their_blocks():
    cache = make_cache(KVSpec("full", 2, 4, "int8"), 6, 16, CPU)
    k = torch.randn(16, 2, 4)
    cache = write_tokens(cache, k, 2 * k, torch.arange(16, 32, dtype=torch.int32))
    cache = copy_blocks(cache, cache, np.array([[1, 5]], np.int32))
    for stored, scale in ((cache.k, cache.k_scale), (cache.v, cache.v_scale)):
        first, copied = (
            read_blocks(stored, scale, torch.tensor([[block]]), torch.float32) for block in (1, 5)
        )
        assert first.abs().sum() > 0
        assert torch.equal(first, copied)


def batch_of(counts, lengths, num_groups=1):
    """Sequences with so many new tokens, all of whose blocks are their own."""
    counts = np.array(counts, np.int32)
    query_start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    token_seqs = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    starts = np.array(lengths, np.int32) - counts
    positions = (np.arange(len(token_seqs)) - query_start[token_seqs] + starts[token_seqs]).astype(
        np.int32
    )
    tables = 1 + np.arange(len(counts) * 4, dtype=np.int32).reshape(-1, 4)
    slots = (tables[token_seqs, positions // 16] * 16 + positions % 16).astype(np.int32)
    return StepBatch(
        token_ids=positions,
        positions=positions,
        token_seqs=token_seqs,
        query_start=query_start,
        seq_lens=np.array(lengths, np.int32),
        context_lens=positions + 1,
        logits_rows=query_start[1:] - 1,
        groups=tuple(GroupBatch(tables.copy(), slots.copy()) for _ in range(num_groups)),
    )


def test_a_plan_has_the_hosts_numbers_and_shares_what_groups_share():
    placed = []

    def put(array):
        placed.append(array)
        return torch.from_numpy(array)

    first, second = make_plans(batch_of([1, 5, 1], [9, 5, 40], num_groups=2), 16, put)
    assert (first.num_seqs, first.max_query_len, first.max_seq_len) == (3, 5, 40)
    assert (first.host_query_start, first.host_seq_lens) == ((0, 1, 6, 7), (9, 5, 40))
    assert first.positions is second.positions
    assert len(placed) == len({id(array) for array in placed}) == 8


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize(
    "counts", [[1, 5, 1, 1], [1, 1, 1, 1], [1]], ids=["mixed", "decodes", "one"]
)
def test_attention_beside_nan(window, counts):
    """Decodes may stand behind prefills, or be recorded; what nobody may see holds NaN."""
    backend = BoundedBackend(0, {})
    params = AttentionParams(scale=0.3, window=window)
    lengths = [9, 12, 40, 3][: len(counts)]
    batch = batch_of(counts, lengths)
    (plan,) = backend.plan(batch, 16)
    cache = make_cache(KVSpec("full", 2, 8, "float32"), 17, 16, CPU)
    cache.k.fill_(torch.nan)
    cache.v.fill_(torch.nan)
    dense = []
    for table, length in zip(batch.groups[0].block_table, lengths, strict=True):
        slots = (table[np.arange(length) // 16] * 16 + np.arange(length) % 16).astype(np.int32)
        k, v = torch.randn(2, length, 2, 8)
        cache = write_tokens(cache, k, v, torch.from_numpy(slots))
        dense.append((k.double().numpy(), v.double().numpy()))
    q = torch.randn(len(batch.positions), 4, 8)
    attended = backend.ops.paged_attention(q, cache, plan, params)
    for token, (seq, position) in enumerate(zip(batch.token_seqs, batch.positions, strict=True)):
        first = 0 if window is None else max(0, position - window + 1)
        for head in range(4):
            k, v = (part[first : position + 1, head // 2] for part in dense[seq])
            scores = np.exp(k @ q[token, head].double().numpy() * params.scale)
            expected = scores @ v / scores.sum()
            np.testing.assert_allclose(attended[token, head].numpy(), expected, atol=1e-5)
