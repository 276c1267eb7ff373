"""How large a cache an engine gets: what the config asks for, within what the device has free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octavo.cache_plan import CacheLimits, CachePlan, plan_cache
from octavo.config import EngineConfig
from octavo.dtype_choice import choose_cache_dtype
from octavo.errors import CapacityError, UsageError
from octavo.kv import group_layers
from octavo.open_device import tell

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.models.base import Model

__all__ = ["plan_for"]


def plan_for(
    config: EngineConfig, model: Model, backend: Backend, *, reserved_bytes: int = 0
) -> CachePlan:
    """Size the caches for what is free, less ``reserved_bytes`` for weights not loaded yet."""
    caps = backend.caps
    block_size = config.block_size or caps.block_sizes[0]
    if block_size not in caps.block_sizes:
        raise UsageError(
            f"block_size={block_size} is not one this backend takes; use one of "
            f"{', '.join(map(str, sorted(caps.block_sizes)))}."
        )
    kv_dtype = choose_cache_dtype(config.kv_cache_dtype, config.dtype, caps.dtypes, caps.kv_dtypes)
    groups = group_layers(model.kv_specs(kv_dtype), caps.int8_scale_bytes)
    limits = CacheLimits(
        block_size=block_size,
        max_model_len=min(
            config.max_model_len or model.max_position_embeddings, model.max_position_embeddings
        ),
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
    )
    if config.max_model_len is not None and config.max_model_len > limits.max_model_len:
        raise UsageError(
            f"max_model_len={config.max_model_len} is more than the {limits.max_model_len} "
            "positions that this model knows; lower it, or set hf_overrides for rope scaling."
        )
    swap_bytes = config.swap_space_bytes if caps.host_swap else 0
    plan = plan_cache(
        groups, limits, _cache_budget_bytes(config, backend, reserved_bytes), swap_bytes
    )
    return _with_fitting_context(config, plan, swap_bytes)


def _with_fitting_context(config: EngineConfig, plan: CachePlan, swap_bytes: int) -> CachePlan:
    """The plan, with the context limited to what one request alone can hold."""
    fits = plan.longest_request_tokens
    if fits >= plan.limits.max_model_len:
        return plan
    if config.max_model_len is not None:
        raise CapacityError(
            f"max_model_len={config.max_model_len} needs more KV cache than there is: the cache "
            f"of {plan.device_bytes / (1 << 20):.1f} MiB holds {fits} tokens at "
            f"{plan.bytes_per_token / 1024:.1f} KiB each. Lower max_model_len to {fits}, or raise "
            "kv_cache_memory_bytes or gpu_memory_utilization."
        )
    tell(
        config,
        f"The cache holds {fits} tokens, fewer than the {plan.limits.max_model_len} the model "
        f"knows: the context is limited to {fits}.",
    )
    limits = CacheLimits(
        plan.limits.block_size,
        fits,
        plan.limits.max_num_seqs,
        plan.limits.max_num_batched_tokens,
    )
    return plan_cache(plan.groups, limits, plan.device_bytes, swap_bytes)


def _cache_budget_bytes(config: EngineConfig, backend: Backend, reserved_bytes: int) -> int:
    if config.kv_cache_memory_bytes is not None:
        return config.kv_cache_memory_bytes
    memory = backend.memory()
    share = config.gpu_memory_utilization
    if memory.shared_with_host:
        share /= 2  # the rest of the system lives here too
    return int(max(0, memory.free_bytes - reserved_bytes) * share)
