"""Blocks of the TPU kernels' caches, made, swapped and forked by the backend."""

from __future__ import annotations

import pytest

pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("octavo_tpu.backend", reason="octavo-tpu is not installed")

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from octavo.api import KVSpec, UsageError
from octavo.cache_sizing import plan_for
from octavo.config import EngineConfig
from octavo.models.registry import build_model
from octavo.testing.tiny_models import TINY_MODELS
from octavo_tpu.capabilities import capabilities
from octavo_tpu.kernels.layout import INT8_BLOCK_TOKENS, make_cache
from octavo_tpu.load import load
from octavo_tpu.options import JaxOptions


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_blocks_go_to_the_host_and_come_back_elsewhere(dtype):
    backend = load(0, {})
    backend.keeps_rows = True
    spec = KVSpec("full", 3, 64, dtype)
    cache = backend.make_kv(spec, 6, 128)
    swap = backend.make_kv(spec, 4, 128, on_host=True)
    assert isinstance(swap.rows, np.ndarray)
    assert swap.rows.shape[1:] == cache.rows.shape[1:]
    rows = jnp.arange(cache.rows.size).reshape(cache.rows.shape) % 100
    cache = dataclasses.replace(cache, rows=rows.astype(cache.rows.dtype))
    wanted = np.asarray(cache.rows)[[1, 4]]
    swap = backend.copy_blocks(cache, swap, np.array([[1, 3], [4, 2]], np.int32))
    cache = backend.copy_blocks(swap, cache, np.array([[3, 5], [2, 2]], np.int32))
    np.testing.assert_array_equal(np.asarray(cache.rows)[[5, 2]], wanted)
    cache = backend.copy_blocks(cache, cache, np.array([[5, 1]], np.int32))
    np.testing.assert_array_equal(np.asarray(cache.rows)[1], wanted[0])
    assert (cache.scales is None) == (dtype != "int8")


def test_every_cache_that_a_tpu_claims_can_be_made():
    caps = capabilities(JaxOptions(device_kind="tpu"))
    assert caps.block_sizes[0] == INT8_BLOCK_TOKENS  # what comes by default serves int8 too
    for dtype in caps.kv_dtypes:
        for block_size in caps.block_sizes:
            spec = KVSpec("full", 3, caps.max_head_dim, dtype)
            if dtype == "int8" and block_size % INT8_BLOCK_TOKENS:
                with pytest.raises(UsageError, match="Use --block-size 128"):
                    make_cache(spec, 2, block_size)
                continue
            assert make_cache(spec, 2, block_size).rows.shape[:2] == (2, block_size)


@pytest.mark.parametrize("keeps_rows", [False, True])
@pytest.mark.parametrize("kv_dtype", ["bfloat16", "float8_e5m2", "int8"])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_caches_take_the_planned_bytes(family, kv_dtype, keeps_rows):
    backend = load(0, {})
    backend.keeps_rows = keeps_rows
    config = EngineConfig(
        model="m",
        block_size=128,
        kv_cache_dtype=kv_dtype,
        kv_cache_memory_bytes=64 << 20,
        swap_space=0,
        quiet=True,
    )
    plan = plan_for(config, build_model(TINY_MODELS[family].config), backend)
    taken_bytes = 0
    for group, num_blocks in zip(plan.groups, plan.num_blocks, strict=True):
        cache = backend.make_kv(group.spec, num_blocks, 128, on_host=True)
        taken_bytes += len(group.layers) * sum(leaf.nbytes for leaf in jax.tree.leaves(cache))
    assert taken_bytes == plan.device_bytes <= 64 << 20
