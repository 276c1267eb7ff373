"""Run with eight host devices: models on one of them, and divided among two, four and eight."""

from __future__ import annotations

import json
import sys
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import jax
import jax.numpy as jnp
import numpy as np
from harness import Driver, TinyBackend

from octavo import api
from octavo.api import PortableCache, PortableLinear, PortableOps
from octavo.loading.dummy import DummySource
from octavo.loading.weights import CheckpointWeightLoader
from octavo.models.registry import build_model
from octavo.models.sharding import shard_model
from octavo.testing.tiny_models import TINY_MODELS
from octavo_tpu.group import DeviceGroup
from octavo_tpu.shares import SharedLinear, SharedVector, group_ops

api.each_step_tree(jax.tree_util.register_dataclass)
PROMPT = list(range(3, 40, 2))
HEADS = {"num_attention_heads": 8, "head_dim": 8, "num_key_value_heads": 2}
CASES = {
    "llama": ({**TINY_MODELS["llama-wide-heads"].config, **HEADS}, (2, 4, 8)),
    "olmo2": ({**TINY_MODELS["olmo2"].config, **HEADS}, (4,)),
}
"""Two KV heads: four devices have two copies of each, and eight have four."""


@dataclass(frozen=True)
class GroupBackend(TinyBackend):
    group: DeviceGroup | None = None

    @property
    def ops(self):
        return group_ops(PortableOps)(jnp)

    def put(self, array, dtype=None):
        return self.group.place(array, dtype)

    def put_vector_shards(self, vector, dtype=None):
        return SharedVector(self.group.place(vector, dtype, axis=0))

    def put_linear_shards(self, weight, bias, dtype, axis):
        placed = self.group.place(weight, dtype, axis=0 if axis == "out" else 1)
        if bias is not None:
            bias = self.group.place(bias, dtype, axis=0 if axis == "out" else None)
        return SharedLinear(PortableLinear(placed), bias, axis)

    def make_kv(self, spec, num_blocks, block_size):
        shape = (num_blocks, block_size, spec.num_kv_heads, spec.head_dim)
        return self.group.make(make_cache, shape)

    def compile(self, step):
        spread = self.group.spread(step, lambda tree: isinstance(tree, PortableCache))
        return jax.jit(spread, donate_argnums=1)


def make_cache(shape):
    return PortableCache(jnp.zeros(shape), jnp.zeros(shape))


def run(config, num_shards):
    model = build_model(config)
    group = DeviceGroup(tuple(jax.devices()[:num_shards]))
    backend = GroupBackend(xp=jnp, to_device=group.place, group=group)
    source = DummySource(config, seed=3)
    loader = CheckpointWeightLoader(source, backend, "float32", num_shards=num_shards)
    weights = model.load(loader)
    driver = Driver(shard_model(model, num_shards), weights, backend, compile=backend.compile)
    request = driver.start(PROMPT)
    logits = driver.prefill(request)
    return logits, driver.generate(request, logits[-1], 8)


def host_memory_of_loading(num_shards=8):
    """The most that NumPy holds beyond what is left in the end, in sizes of the largest weight."""
    config = {**CASES["llama"][0], "hidden_size": 256, "intermediate_size": 4096}
    config["num_hidden_layers"] = 8
    model = build_model(config)
    group = DeviceGroup(tuple(jax.devices()[:num_shards]))
    backend = GroupBackend(xp=jnp, to_device=group.place, group=group)
    source = DummySource(config)
    loader = CheckpointWeightLoader(source, backend, "float32", num_shards=num_shards)
    tracemalloc.start()
    weights = jax.block_until_ready(model.load(loader))
    left_bytes, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    largest = max(array.nbytes for array in jax.tree.leaves(weights))
    return (peak_bytes - left_bytes) / largest, model.num_parameters * 4 / largest


def main():
    found = {}
    for name, (config, sizes) in CASES.items():
        whole, tokens = run(config, 1)
        for num_shards in sizes:
            logits, shard_tokens = run(config, num_shards)
            error = float(np.abs(logits - whole).max())
            found[f"{name} {num_shards}"] = error, shard_tokens == tokens
    print(json.dumps([found, host_memory_of_loading()]))


main()
