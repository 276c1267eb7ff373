"""How large a cache an engine gets: what the config asks for, within what the device has free."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from octavo.cache_plan import CacheLimits, CachePlan, plan_cache
from octavo.config import EngineConfig
from octavo.dtype_choice import choose_cache_dtype
from octavo.errors import CapacityError, UsageError
from octavo.kv import group_layers
from octavo.open_device import tell

if TYPE_CHECKING:
    from octavo.backend import Backend, MemoryInfo
    from octavo.kv import KVGroup, KVSpec
    from octavo.models.base import Model

__all__ = ["cache_demand", "plan_for"]

_SPARE_SHARE = 0.02  # of a device's memory: for recorded graphs, workspaces, fragments


def cache_demand(
    config: EngineConfig, model: Model, backend: Backend
) -> tuple[tuple[KVGroup, ...], CacheLimits]:
    """What is to be cached, and what bounds the use of it. Raises UsageError."""
    caps = backend.caps
    block_size = config.block_size or caps.block_sizes[0]
    if block_size not in caps.block_sizes:
        raise UsageError(
            f"block_size={block_size} is not one this backend takes; use one of "
            f"{', '.join(map(str, sorted(caps.block_sizes)))}."
        )
    kv_dtype = choose_cache_dtype(config.kv_cache_dtype, config.dtype, caps.dtypes, caps.kv_dtypes)
    groups = group_layers(model.kv_specs(kv_dtype), functools.partial(_extra_bytes, backend))
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
    return tuple(groups), limits


def plan_for(
    config: EngineConfig,
    model: Model,
    backend: Backend,
    *,
    reserved_bytes: int = 0,
    opened: MemoryInfo | None = None,
) -> CachePlan:
    """Size the caches for what is free now, less ``reserved_bytes`` for what will be taken yet.

    ``opened`` is the memory before the engine took anything, if it has taken anything yet.
    """
    groups, limits = cache_demand(config, model, backend)
    swap_bytes = config.swap_space_bytes if backend.caps.host_swap else 0
    if config.kv_cache_memory_bytes is not None:
        plan = plan_cache(groups, limits, config.kv_cache_memory_bytes, swap_bytes)
        return _with_fitting_context(config, plan, swap_bytes)
    memory = backend.memory()
    budget_bytes = _budget_bytes(config, memory, reserved_bytes, opened or memory)
    if backend.caps.token_buckets:
        budget_bytes = _of_few_sizes(budget_bytes, memory)
    try:
        plan = plan_cache(groups, limits, budget_bytes, swap_bytes)
    except CapacityError as error:
        taken_bytes = max(0, (opened or memory).free_bytes - memory.free_bytes)
        raise CapacityError(
            f"{error} Of {_mib(memory.total_bytes)} the engine has taken {_mib(taken_bytes)}, "
            f"{_mib(memory.free_bytes)} are free, and {_mib(reserved_bytes)} of those are kept: "
            f"a step of {limits.max_num_batched_tokens} tokens and {limits.max_num_seqs} requests "
            "takes them. Fewer of either (max_num_batched_tokens, max_num_seqs) take less."
            if reserved_bytes and opened is not None
            else str(error)
        ) from None
    return _with_fitting_context(config, plan, swap_bytes)


def _extra_bytes(backend: Backend, spec: KVSpec) -> int:
    """What a backend's cache of one layer takes for a token beside its numbers."""
    measure = getattr(backend, "kv_bytes_per_token", None)
    if measure is not None:
        return int(measure(spec)) - spec.bytes_per_token
    if spec.dtype != "int8":
        return 0
    return 2 * spec.num_kv_heads * backend.caps.int8_scale_bytes


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


def _budget_bytes(
    config: EngineConfig, memory: MemoryInfo, reserved_bytes: int, opened: MemoryInfo
) -> int:
    """Of memory that is the host's too, a share of what is free; else what is left of the share.

    A device's own memory is shared by engines alone: each takes its share of all of it for
    everything, weights and steps among them, as far as that much was free when it opened.
    """
    share = config.gpu_memory_utilization
    if memory.shared_with_host:
        # The rest of the system lives here too.
        return int(max(0, memory.free_bytes - reserved_bytes) * share / 2)
    taken_bytes = max(0, opened.free_bytes - memory.free_bytes) + reserved_bytes
    wanted_bytes = int(memory.total_bytes * share)
    usable_bytes = opened.free_bytes - int(memory.total_bytes * _SPARE_SHARE)
    if usable_bytes < wanted_bytes:
        tell(
            config,
            f"{share:.0%} of the device's {_gib(memory.total_bytes)} are not free: "
            f"{_gib(opened.free_bytes)} were when the engine opened, and it takes up to "
            f"{_gib(max(0, usable_bytes))}.",
        )
    return max(0, min(wanted_bytes, usable_bytes) - taken_bytes)


def _of_few_sizes(budget_bytes: int, memory: MemoryInfo) -> int:
    """Rounded down, where each size is a program that may have been compiled at an earlier start.

    What is free of the host's memory is never the same twice; of a device's own it nearly is.
    """
    num_digits = 3 if memory.shared_with_host else 6
    shift = max(0, budget_bytes.bit_length() - num_digits)
    return budget_bytes >> shift << shift


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 20):,.1f} MiB"


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):,.2f} GiB"
