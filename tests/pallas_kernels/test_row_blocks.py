"""Blocks of the TPU kernels' caches, made, swapped and forked by the backend."""

from __future__ import annotations

import pytest

pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("octavo_tpu.backend", reason="octavo-tpu is not installed")

import dataclasses

import jax.numpy as jnp
import numpy as np

from octavo.api import KVSpec, UsageError
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
