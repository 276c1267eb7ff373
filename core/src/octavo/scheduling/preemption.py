"""How to preempt a request: recompute it later, or move its blocks to the host and back."""

from __future__ import annotations

from octavo.block_tables import BlockTables
from octavo.request import Request
from octavo.scheduling.config import PreemptionCosts, SchedulerConfig

__all__ = ["should_swap"]


def should_swap(
    request: Request, tables: BlockTables, config: SchedulerConfig, costs: PreemptionCosts | None
) -> bool:
    """By swap where the mode or the costs say so and the host has room; else by recompute.

    The cost of recomputing is an upper bound: the prefix cache may still hold some of it then.
    """
    if config.preemption_mode == "recompute" or not tables.can_swap_out(request):
        return False
    if config.preemption_mode == "swap":
        return True
    if costs is None:
        return False
    num_blocks = sum(tables.count_held(request, group) for group in range(len(tables.pools)))
    swap_s = 2 * num_blocks * costs.seconds_per_swapped_block
    return swap_s < request.num_computed_tokens * costs.seconds_per_recomputed_token
