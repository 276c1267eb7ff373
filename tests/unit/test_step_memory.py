"""The cache gets what weights and the largest step leave; steps are rehearsed before they count."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from octavo import LLM, SamplingParams
from octavo.cache_plan import CacheLimits
from octavo.errors import CapacityError
from octavo.padding import Buckets
from octavo.rehearsal import StepShape, largest_step, padding_batch, shapes_of
from octavo.testing.tiny_models import TINY_MODELS
from octavo_cpu.fake.computing import ComputingBackend

MIB = 1 << 20
VOCAB_SIZE = 20_000
LLAMA = TINY_MODELS["llama"].config | {
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 1 << 16,
}
GREEDY = SamplingParams(temperature=0, max_tokens=9, ignore_eos=True, detokenize=False)
PROMPTS = [[1, 2, 3], [7] * 20, list(range(5, 45)), [9, 8]]


@pytest.fixture
def load(tmp_path):
    """``load(fake options, **engine options)``: an LLM on the fake device."""
    loaded = []

    def load(options, **engine):
        folder = tmp_path / f"model-{len(loaded)}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
        defaults = {"load_format": "dummy", "max_model_len": 96, "quiet": True, "swap_space": 0}
        defaults |= {"max_num_seqs": 8, "max_num_batched_tokens": 64, "dtype": "float32"}
        loaded.append(LLM(str(folder), "fake", options=options, **{**defaults, **engine}))
        return loaded[-1]

    yield load
    for llm in loaded:
        llm.close()


def memory(llm):
    return llm.loaded.backend.memory()


def weight_bytes(llm):
    info = memory(llm)
    return info.total_bytes - info.free_bytes - llm.loaded.plan.device_bytes


def test_the_largest_step_is_left_room(load):
    blind, seeing = (
        load({"memory_bytes": 64 * MIB, "measured": measured}, max_model_len=1 << 15)
        for measured in (False, True)
    )
    spared = blind.loaded.plan.device_bytes - seeing.loaded.plan.device_bytes
    assert spared >= 8 * VOCAB_SIZE * 4  # the logits of eight rows, at least
    assert spared < 8 * MIB
    assert memory(seeing).free_bytes >= spared


def test_an_engine_takes_its_share_of_all_memory_and_two_fit_one_device(load):
    llm = load({"memory_bytes": 64 * MIB}, gpu_memory_utilization=0.5, max_model_len=1 << 15)
    taken = memory(llm).total_bytes - memory(llm).free_bytes
    assert 0.45 * 64 * MIB < taken <= 0.5 * 64 * MIB
    assert weight_bytes(llm) > MIB


def test_less_than_the_share_is_said_and_used(load, monkeypatch, capfd):
    def crowded(self):
        return replace(self._memory.info(), free_bytes=self._memory.free_bytes - 8 * MIB)

    monkeypatch.setattr(ComputingBackend, "memory", crowded)
    llm = load({"memory_bytes": 64 * MIB}, quiet=False, max_model_len=1 << 15)
    assert "90% of the device's 0.06 GiB are not free: 0.05 GiB were" in capfd.readouterr().err
    assert 0 < memory(llm).free_bytes < 0.08 * 64 * MIB


def test_what_leaves_no_room_for_a_cache_is_said(load):
    with pytest.raises(CapacityError) as refused:
        load({"memory_bytes": 14 * MIB, "measured": True}, max_num_seqs=48)
    said = str(refused.value)
    assert "The KV cache needs at least 0.0 MiB" in said
    assert "Of 14.0 MiB the engine has taken 10" in said
    assert "a step of 64 tokens and 48 requests takes them" in said


def test_what_takes_memory_is_told(load, capfd):
    load({"memory_bytes": 1 << 30, "measured": True}, quiet=False)
    said = capfd.readouterr().err
    assert "Memory: weights 0.01 GiB, the largest step 0." in said
    assert "GiB (768 tokens)." in said


def test_where_not_even_a_step_fits_it_is_said(load, monkeypatch):
    def exhausted(self, run):
        raise MemoryError("out of memory: 3 GiB asked for")

    monkeypatch.setattr("octavo_cpu.fake.computing.MeasuredBackend.peak_bytes", exhausted)
    with pytest.raises(CapacityError, match=r"in a step.*3 GiB asked for.*max_num_batched_tokens"):
        load({"measured": True})


def test_the_largest_step_has_all_tokens_and_rows():
    shape = largest_step(CacheLimits(16, 2048, 5, 64))
    assert shape == StepShape((13, 13, 13, 13, 12), 2048, is_drawn=True)
    batch = padding_batch(shape, 16, num_groups=2)
    assert len(batch.token_ids) == 64
    assert np.array_equal(batch.positions[:14], [*range(13), 0])
    assert [group.block_table.shape for group in batch.groups] == [(5, 128)] * 2
    assert not any(group.slots.any() or group.block_table.any() for group in batch.groups)
    short = largest_step(CacheLimits(16, 4, 3, 64))
    assert short.query_lens == (4, 4, 4)


def test_sizes_that_can_come_about_are_rehearsed_the_largest_first():
    shapes = list(shapes_of(Buckets((), (), (1, 2, 4, 8, 16)), CacheLimits(16, 64, 5, 64)))
    assert [len(shape.query_lens) for shape in shapes[::2]] == [5, 4, 2, 1]
    assert [shape.is_drawn for shape in shapes] == [False, True] * 4


def test_rehearsals_come_before_the_first_request_and_change_no_answer(load, monkeypatch):
    expected = [answer.outputs[0].token_ids for answer in load({}).generate(PROMPTS, GREEDY)]
    seen = []
    compiled, made = ComputingBackend.compile, ComputingBackend.__init__

    def compile(self, step):  # noqa: A001 - the member's name
        inner = compiled(self, step)

        def run(weights, caches, batch, *rest):
            seen.append((len(batch.token_ids), rest[1].all_greedy))
            return inner(weights, caches, batch, *rest)

        return run

    def make(self, *arguments):
        made(self, *arguments)
        self.caps = replace(self.caps, decode_buckets=(1, 2, 4), rehearsed=True)

    monkeypatch.setattr(ComputingBackend, "compile", compile)
    monkeypatch.setattr(ComputingBackend, "__init__", make)
    llm = load({}, max_num_seqs=4)
    assert seen == [
        (size, greedy) for size in (4, 2, 1) for greedy in (True, False) for _ in range(2)
    ]
    answers = llm.generate(PROMPTS, GREEDY)
    assert [answer.outputs[0].token_ids for answer in answers] == expected


def test_where_shapes_are_programs_a_little_more_memory_makes_no_other_cache(load, monkeypatch):
    made = ComputingBackend.__init__

    def make(self, *arguments):
        made(self, *arguments)
        self.caps = replace(self.caps, token_buckets=(64,), seq_buckets=(8,))

    sizes = [64 * MIB, 64 * MIB + 200_000]
    exact = [load({"memory_bytes": size}, max_model_len=1 << 15).loaded.plan for size in sizes]
    assert exact[0].num_blocks < exact[1].num_blocks
    monkeypatch.setattr(ComputingBackend, "__init__", make)
    plans = [load({"memory_bytes": size}, max_model_len=1 << 15).loaded.plan for size in sizes]
    assert plans[0] == plans[1]
    assert 0.96 * exact[0].device_bytes < plans[0].device_bytes <= exact[0].device_bytes
