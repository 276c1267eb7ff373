"""How much KV cache fits: bytes and limits in, blocks per KV group out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from octavo.errors import CapacityError
from octavo.kv import KVGroup

__all__ = ["CacheLimits", "CachePlan", "plan_cache"]

MIB = 1 << 20


@dataclass(frozen=True)
class CacheLimits:
    """What bounds the use of the cache, whatever memory there is."""

    block_size: int
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int


@dataclass(frozen=True)
class CachePlan:
    """Blocks of each KV group, block 0 included, on the device and in host swap space."""

    groups: tuple[KVGroup, ...]
    limits: CacheLimits
    num_blocks: tuple[int, ...]
    num_host_blocks: tuple[int, ...]

    @property
    def device_bytes(self) -> int:
        """Device memory of all caches."""
        return sum(
            group.bytes_per_block(self.limits.block_size) * count
            for group, count in zip(self.groups, self.num_blocks, strict=True)
        )

    @property
    def bytes_per_token(self) -> int:
        """Cache bytes of one token over all groups, windows aside."""
        return sum(group.bytes_per_token for group in self.groups)

    @property
    def capacity_tokens(self) -> int:
        """Tokens of context that fit at once (of the groups that keep everything, if any)."""
        full = [
            count
            for group, count in zip(self.groups, self.num_blocks, strict=True)
            if group.spec.window is None
        ]
        return (min(full or self.num_blocks) - 1) * self.limits.block_size

    @property
    def longest_request_tokens(self) -> int:
        """The longest context that one request alone can have."""
        longest = self.limits.max_model_len
        for group, count in zip(self.groups, self.num_blocks, strict=True):
            if group.spec.window is None:
                longest = min(longest, (count - 1) * self.limits.block_size)
        return longest


def plan_cache(
    groups: Sequence[KVGroup], limits: CacheLimits, budget_bytes: int, swap_bytes: int = 0
) -> CachePlan:
    """Share ``budget_bytes`` among the groups, as many blocks as can be of use.

    Raises CapacityError when not even one block of each group fits.
    """
    useful = [_useful_blocks(group, limits) for group in groups]
    block_bytes = [group.bytes_per_block(limits.block_size) for group in groups]
    blocks = _largest_share(useful, block_bytes, budget_bytes)
    smallest_bytes = 2 * sum(block_bytes)
    if blocks < 2:
        raise CapacityError(
            f"The KV cache needs at least {smallest_bytes / MIB:.1f} MiB (two blocks of "
            f"{limits.block_size} tokens in every layer), but {budget_bytes / MIB:.1f} MiB is left "
            "for it. Use a smaller model or dtype, or raise gpu_memory_utilization or "
            "kv_cache_memory_bytes."
        )
    num_blocks = tuple(min(blocks, count) for count in useful)
    host_blocks = _largest_share(list(num_blocks), block_bytes, swap_bytes)
    return CachePlan(
        tuple(groups), limits, num_blocks, tuple(min(host_blocks, count) for count in num_blocks)
    )


def _useful_blocks(group: KVGroup, limits: CacheLimits) -> int:
    """The most blocks that ``max_num_seqs`` requests could hold in this group at once."""
    blocks_per_request = -(-limits.max_model_len // limits.block_size)
    if group.spec.window is None:
        return blocks_per_request * limits.max_num_seqs + 1
    # A window touches at most this many blocks, plus those of the step's own tokens.
    window_blocks = -(-group.spec.window // limits.block_size) + 2
    step_blocks = -(-limits.max_num_batched_tokens // limits.block_size)
    return min(blocks_per_request, window_blocks) * limits.max_num_seqs + step_blocks + 1


def _largest_share(useful: Sequence[int], block_bytes: Sequence[int], budget_bytes: int) -> int:
    """The largest n such that ``min(n, useful)`` blocks of each group fit the budget."""
    low, high = 0, max(useful)
    while low < high:
        middle = (low + high + 1) // 2
        needed = sum(
            min(middle, count) * size for count, size in zip(useful, block_bytes, strict=True)
        )
        low, high = (middle, high) if needed <= budget_bytes else (low, middle - 1)
    return low
