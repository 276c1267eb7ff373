"""A model divided among devices: what each gets, and that together they compute the same."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from harness import Driver, TinyBackend

from octavo.config import EngineConfig
from octavo.errors import UsageError
from octavo.loading.dummy import DummySource
from octavo.loading.packing import Packing
from octavo.loading.tensors import QuantizedTensor
from octavo.loading.weight_bytes import weight_bytes
from octavo.loading.weights import CheckpointWeightLoader
from octavo.models.llama import Llama
from octavo.models.registry import build_model
from octavo.models.sharding import shard_model
from octavo.open_device import open_device
from octavo.ops.portable import PortableOps
from octavo.ops.storage import PortableLinear
from octavo.splits import Part, Split
from octavo.testing.tiny_models import TINY_MODELS

PROMPT = list(range(3, 40, 2))


class Meeting:
    """Where the devices of a group meet: each brings an array and takes the sum along."""

    def __init__(self, num_shards):
        self.barrier = threading.Barrier(num_shards, timeout=20)
        self.brought = [None] * num_shards

    def sum(self, rank, array):
        self.brought[rank] = array
        self.barrier.wait()
        total = np.sum(self.brought, axis=0, dtype=np.float32)
        self.barrier.wait()
        return total


@dataclass(frozen=True)
class Share:
    """One device's part of a weight; ``axis`` is None for the weight of a norm."""

    values: Any
    bias: Any = None
    axis: str | None = None


class GroupOps(PortableOps):
    def __init__(self, xp, rank, meeting):
        super().__init__(xp)
        self.rank, self.meeting = rank, meeting

    def linear(self, x, weight):
        if isinstance(weight, PortableLinear):
            return super().linear(x, weight)
        product = x @ weight.values.T
        if weight.axis == "in":
            product = self.meeting.sum(self.rank, product)
        return product if weight.bias is None else product + weight.bias

    def rms_norm(self, x, weight, eps):
        if not isinstance(weight, Share):
            return super().rms_norm(x, weight, eps)
        squares = np.mean(x * x, axis=-1, keepdims=True)
        mean = self.meeting.sum(self.rank, squares) / len(self.meeting.brought)
        return x / np.sqrt(mean + np.float32(eps)) * weight.values


@dataclass(frozen=True)
class Device(TinyBackend):
    """One of a group, in a thread of its own."""

    rank: int = 0
    num_shards: int = 1
    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    @property
    def ops(self):
        return GroupOps(self.xp, self.rank, self.meeting)

    def put_vector_shards(self, vector, _dtype=None):
        return Share(np.split(vector, self.num_shards)[self.rank])

    def put_linear_shards(self, weight, bias, _dtype, axis):
        own = np.split(weight, self.num_shards, axis=0 if axis == "out" else 1)[self.rank]
        if bias is not None and axis == "out":
            bias = np.split(bias, self.num_shards)[self.rank]
        return Share(own, bias, axis)


def greedy(config, num_shards):
    """Logits of the prompt and greedy tokens after it, from every device."""
    model = build_model(config)
    shard = shard_model(model, num_shards)
    meeting = Meeting(num_shards)

    def run(rank):
        backend = Device(rank=rank, num_shards=num_shards, meeting=meeting)
        source = DummySource(config, seed=3)
        loader = CheckpointWeightLoader(source, backend, "float32", num_shards=num_shards)
        driver = Driver(shard, model.load(loader), backend)
        request = driver.start(PROMPT)
        logits = driver.prefill(request, 7)
        return logits, driver.generate(request, logits[-1], 12)

    with ThreadPoolExecutor(num_shards) as threads:
        return list(threads.map(run, range(num_shards)))


@pytest.mark.parametrize("name", TINY_MODELS)
def test_families(name):
    config = TINY_MODELS[name].config
    [(whole, tokens)] = greedy(config, 1)
    for num_shards in (2, 4):  # of two KV heads, four devices have two copies each
        for logits, shard_tokens in greedy(config, num_shards):
            np.testing.assert_allclose(logits, whole, rtol=0, atol=2e-5)
            assert shard_tokens == tokens


@pytest.mark.parametrize(
    ("parts", "num_shards", "order"),
    [
        ([Part(8, 8)], 2, [0, 1, 2, 3, 4, 5, 6, 7]),
        ([Part(4, 2), Part(2, 2), Part(2, 2)], 2, [0, 1, 4, 6, 2, 3, 5, 7]),
        ([Part(4, 4), Part(2, 1)], 2, [0, 1, 4, 5, 2, 3, 4, 5]),
        ([Part(4, 2)], 4, [0, 1, 0, 1, 2, 3, 2, 3]),
    ],
    ids=["one part", "stacked", "one head for two", "two heads for four"],
)
def test_order(parts, num_shards, order):
    split = Split("out", tuple(parts))
    size = sum(part.size for part in parts)
    rows = [row for piece in split.order(num_shards) for row in range(size)[piece]]
    assert rows == order
    assert split.shard_size(num_shards) == len(order) / num_shards


def llama(**changes):
    return Llama({**TINY_MODELS["llama"].config, **changes})


@pytest.mark.parametrize(
    ("model", "num_shards", "message"),
    [
        (llama(), 3, "4 heads, 2 KV heads and 96 features .* use one of 1, 2, 4"),
        (llama(num_attention_heads=6, num_key_value_heads=3, head_dim=8), 2, "use one of 1, 3, 6"),
        (llama(intermediate_size=97), 2, "use one of 1"),
        (object(), 2, "object does not say how it divides"),
    ],
    ids=["heads", "KV heads", "MLP", "no shard"],
)
def test_refused(model, num_shards, message):
    with pytest.raises(UsageError, match=message):
        shard_model(model, num_shards)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensor_parallel_size": 2}, "'numpy' does not divide a model .*leave it out"),
        ({"tensor_parallel_size": 0}, "must be a whole number of at least 1"),
        ({"options": {"tensor_parallel_size": 2}}, "Pass --tensor-parallel-size"),
    ],
    ids=["backend", "size", "option"],
)
def test_a_backend_that_cannot(options, message):
    with pytest.raises(UsageError, match=message):
        open_device(EngineConfig(model="m", device="cpu", backend="numpy", quiet=True, **options))


class Forgetful(Llama):
    """Another down projection than Llama's, loaded without a word about devices."""

    def load_down(self, loader, name):
        config = self.config
        sizes = {"in_features": config.intermediate_size, "out_features": [config.hidden_size]}
        return loader.linear(f"{name}.last_proj", **sizes)


def test_a_model_that_does_not_say_what_it_divides():
    with pytest.raises(UsageError, match=r"\[64, 48\] of .*last_proj.weight \[64, 96\]"):
        shard_model(Forgetful(TINY_MODELS["llama"].config), 2)


def test_packed_columns_go_whole_or_unpacked():
    """Of two groups of 32 to a row, two devices get one each; four get floats."""
    kept = []

    class Packs(Device):
        def put_linear_shards(self, weight, bias, dtype, axis):
            kept.append(isinstance(weight, QuantizedTensor))

    for num_shards in (2, 4):
        backend = Packs(num_shards=num_shards, quantization=("gguf:Q8_0",))
        loader = CheckpointWeightLoader(
            DummySource({}, seed=0),
            backend,
            "float32",
            packing=Packing(("gguf:Q8_0",), "int8"),
            num_shards=num_shards,
        )
        for axis in ("out", "in"):
            split = Split(axis, (Part(64, 64),))
            loader.linear("a", in_features=64, out_features=[64], split=split)
    assert kept == [True, True, True, False]


def test_bytes_of_one_device():
    """Matrices of a layer are divided, all else is whole."""
    model = llama()
    source = DummySource(TINY_MODELS["llama"].config, seed=0)
    whole, quarter = (weight_bytes(model, source, Packing(), "float32", n) for n in (1, 4))
    attention = 64 * (64 + 2 * 32 + 64) - 64 * (16 + 2 * 16 + 16)  # a KV head of 16 stays
    mlp = 3 * 64 * 96 * 3 // 4
    assert whole - quarter == 4 * 2 * (attention + mlp)
