"""What the largest step takes of a device's memory, measured before the cache gets the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octavo.cache_plan import plan_cache
from octavo.cache_sizing import cache_demand
from octavo.member_faults import naming_step_faults
from octavo.rehearsal import largest_step
from octavo.runner import Runner

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.config import EngineConfig
    from octavo.models.base import Model, Weights
    from octavo.ops.protocol import Ops

__all__ = ["step_bytes"]


def step_bytes(
    config: EngineConfig,
    backend: Backend,
    ops: Ops,
    model: Model,
    weights: Weights,
    backend_name: str,
) -> int:
    """Bytes at the most, beyond weights and cache; 0 where the backend does not measure them.

    Nor are they measured where the cache's size is asked for in bytes. Raises CapacityError where
    not even a step fits.
    """
    measure = getattr(backend, "peak_bytes", None)
    if measure is None or config.kv_cache_memory_bytes is not None:
        return 0
    groups, limits = cache_demand(config, model, backend)
    two_blocks = 2 * sum(group.bytes_per_block(limits.block_size) for group in groups)
    plan = plan_cache(groups, limits, two_blocks)
    with naming_step_faults(backend_name):
        runner = Runner(
            backend,
            ops,
            model,
            weights,
            plan,
            seed=config.seed,
            max_logprobs=config.max_logprobs,
            backend_name=backend_name,
        )
        try:
            return int(measure(lambda: runner.preparation.rehearse(largest_step(limits))))
        finally:
            runner.close()
