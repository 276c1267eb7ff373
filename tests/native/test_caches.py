"""A cache takes the memory that was planned for it."""

from __future__ import annotations

import pytest

from octavo.cache_sizing import plan_for
from octavo.config import EngineConfig
from octavo.models.registry import build_model
from octavo.testing.tiny_models import TINY_MODELS
from octavo_cpu.native.backend import NativeBackend
from octavo_cpu.native.caches import make_cache


class Claims:
    """What planning asks of a backend, without its kernels."""

    caps = NativeBackend.caps


@pytest.mark.parametrize("kv_dtype", NativeBackend.caps.kv_dtypes)
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_caches_of_every_dtype_take_the_planned_bytes(name, kv_dtype):
    config = EngineConfig(
        model="m", kv_cache_dtype=kv_dtype, kv_cache_memory_bytes=4 << 20, swap_space=0, quiet=True
    )
    plan = plan_for(config, build_model(TINY_MODELS[name].config), Claims())
    block_size, taken_bytes = plan.limits.block_size, 0
    for group, num_blocks in zip(plan.groups, plan.num_blocks, strict=True):
        cache = make_cache(group.spec, num_blocks, block_size)
        scale_bytes = 0 if cache.scales is None else cache.scales.nbytes
        taken_bytes += len(group.layers) * (cache.k.nbytes + cache.v.nbytes + scale_bytes)
    assert taken_bytes == plan.device_bytes
    assert plan.device_bytes <= 4 << 20
    assert plan.bytes_per_token * block_size == sum(
        group.bytes_per_block(block_size) for group in plan.groups
    )
