"""Block tables of all KV groups: grow, share, copy on write, free behind windows, swap."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from octavo.blocks import BlockPool, HostPool
from octavo.prefix_cache import find_hit, first_visible_block, hash_blocks
from octavo.request import Request
from octavo.scheduling.config import GroupConfig
from octavo.scheduling.schedule import BlockPairs, TableUpdate

__all__ = ["BlockTables"]


class BlockTables:
    """Hands blocks to requests and collects what the device must do for it before the next step.

    The tables of one request have the same length in every group; a sliding group's leading
    entries turn 0 once no later query can see them.
    """

    def __init__(
        self, block_size: int, groups: Sequence[GroupConfig], *, enable_prefix_caching: bool
    ) -> None:
        self.block_size = block_size
        self.windows = tuple(group.window for group in groups)
        self.pools = tuple(BlockPool(group.num_blocks) for group in groups)
        self.host_pools = tuple(HostPool(group.num_host_blocks) for group in groups)
        self._enable_prefix_caching = enable_prefix_caching
        self._has_windows = any(self.windows)
        self.begin_step()

    def begin_step(self) -> None:
        """Start new lists of operations; the ones before now belong to the step handed out.

        Copies run after the swaps of their step, so a copy's source stays pinned until here: freed
        earlier, it could be a swap's destination and be overwritten before it is read.
        """
        self.copies: list[BlockPairs] = [[] for _ in self.pools]
        self.swap_out_pairs: list[BlockPairs] = [[] for _ in self.pools]
        self.swap_in_pairs: list[BlockPairs] = [[] for _ in self.pools]
        self.updates: list[TableUpdate] = []
        for pool in self.pools:
            pool.unpin_all()

    def open(self, request: Request) -> None:
        """Prepare a request that holds nothing yet."""
        num_groups = len(self.pools)
        request.blocks = [[] for _ in range(num_groups)]
        request.host_blocks = [[] for _ in range(num_groups)]
        request.window_starts = [0] * num_groups
        request.register_at = self.block_size if self._enable_prefix_caching else sys.maxsize

    def count_blocks(self, group: int, num_tokens: int, first_token: int, max_chunk: int) -> int:
        """Most blocks a request holds at once while computing positions [first_token, num_tokens).

        ``max_chunk`` is the smallest number of tokens a step may be cut down to.
        """
        total = -(-num_tokens // self.block_size)
        window = self.windows[group]
        if window is None:
            return total
        first = first_visible_block(first_token, window, self.block_size)
        span = -(-(window + max_chunk - 2) // self.block_size) + 1
        return min(total - first, span)

    def count_held(self, request: Request, group: int) -> int:
        """Device blocks in the request's table."""
        return len(request.blocks[group]) - request.window_starts[group]

    def count_fitting(self, request: Request, spare_blocks: int = 0) -> int:
        """How many tokens after the computed ones have, or could be given, blocks to write to.

        ``spare_blocks`` of each group are left alone.
        """
        if self._has_windows:
            self._free_behind_window(request)
        num_computed_tokens = request.num_computed_tokens
        tail = num_computed_tokens // self.block_size
        num_new_blocks = sys.maxsize
        for pool, table in zip(self.pools, request.blocks, strict=True):
            needs_copy = tail < len(table) and pool.is_shared(table[tail])
            if needs_copy and not pool.num_free:
                return 0
            num_new_blocks = min(num_new_blocks, pool.num_free - needs_copy)
        num_blocks = len(request.blocks[0]) + max(0, num_new_blocks - spare_blocks)
        return num_blocks * self.block_size - num_computed_tokens

    def grow(self, request: Request, num_tokens: int) -> None:
        """Make the next ``num_tokens`` positions writable; at most ``count_fitting`` of them."""
        num_computed_tokens = request.num_computed_tokens
        tail = num_computed_tokens // self.block_size
        num_blocks = -(-(num_computed_tokens + num_tokens) // self.block_size)
        for group, (pool, table) in enumerate(zip(self.pools, request.blocks, strict=True)):
            num_held = len(table)
            if tail < num_held:
                self._own(request, group, tail)
            if num_blocks > num_held:
                new_blocks = pool.allocate(num_blocks - num_held)
                table.extend(new_blocks)
                if request.row >= 0:
                    self.updates.append((request.row, group, num_held, new_blocks))
        request.writable_tokens = len(request.blocks[0]) * self.block_size

    def _own(self, request: Request, group: int, index: int) -> None:
        """Make one block safe to overwrite: copy it if shared, forget its hash if it has one."""
        pool, table = self.pools[group], request.blocks[group]
        source = table[index]
        if not pool.is_shared(source):
            pool.unregister(source)
            return
        [target] = pool.allocate(1)
        self.copies[group].append((source, target))
        pool.pin(source)
        pool.release((source,))
        table[index] = target
        if request.row >= 0:
            self.updates.append((request.row, group, index, [target]))

    def _free_behind_window(self, request: Request) -> None:
        """Release blocks that no query from the next one on can see."""
        for group, window in enumerate(self.windows):
            if window is None:
                continue
            start = request.window_starts[group]
            end = first_visible_block(request.num_computed_tokens, window, self.block_size)
            if end > start:
                table = request.blocks[group]
                self.pools[group].release(reversed(table[start:end]))
                table[start:end] = [0] * (end - start)
                request.window_starts[group] = end

    def list_all(self, request: Request) -> None:
        """Note the whole table for a request that got a row."""
        for group, table in enumerate(request.blocks):
            self.updates.append((request.row, group, 0, list(table)))

    def release(self, request: Request) -> None:
        """Give back everything, on the device and on the host; registered blocks stay cached."""
        for pool, table in zip(self.pools, request.blocks, strict=True):
            pool.release(reversed(table))
        for host_pool, host_table in zip(self.host_pools, request.host_blocks, strict=True):
            host_pool.release(host_table)
        request.writable_tokens = 0
        self.open(request)

    def truncate(self, request: Request, num_computed_tokens: int) -> None:
        """Take back computed tokens; whole blocks behind them go."""
        for window, start in zip(self.windows, request.window_starts, strict=True):
            if first_visible_block(num_computed_tokens, window, self.block_size) < start:
                raise ValueError(
                    f"cannot roll {request.request_id!r} back to {num_computed_tokens} tokens: "
                    f"the blocks before {start * self.block_size} fell out of {window=} and are "
                    "freed; roll back no further than the last step's first token"
                )
        num_blocks = -(-num_computed_tokens // self.block_size)
        for pool, table in zip(self.pools, request.blocks, strict=True):
            pool.release(reversed(table[num_blocks:]))
            del table[num_blocks:]
        num_full_blocks = num_computed_tokens // self.block_size
        del request.block_hashes[num_full_blocks:]
        request.register_at = min(request.register_at, (num_full_blocks + 1) * self.block_size)
        request.num_computed_tokens = num_computed_tokens
        request.writable_tokens = 0

    def share(self, parent: Request, child: Request) -> None:
        """Let the child hold the parent's computed blocks too; whoever writes next copies."""
        self.open(child)
        num_computed_tokens = parent.num_computed_tokens
        num_blocks = -(-num_computed_tokens // self.block_size)
        for pool, table, shared in zip(self.pools, child.blocks, parent.blocks, strict=True):
            table.extend(block and pool.share(block) for block in shared[:num_blocks])
        child.window_starts = list(parent.window_starts)
        child.num_computed_tokens = num_computed_tokens
        child.block_hashes = parent.block_hashes[: num_computed_tokens // self.block_size]
        child.register_at = parent.register_at
        parent.writable_tokens = child.writable_tokens = 0

    def find_prefix(self, request: Request) -> int:
        """Leading blocks the cache holds for a request."""
        if not (self._enable_prefix_caching and request.use_prefix_cache):
            return 0
        return find_hit(request, self.pools, self.windows, self.block_size)

    def count_used(self, request: Request, group: int, num_blocks: int) -> int:
        """How many of the ``num_blocks`` that ``find_prefix`` counted are held by others.

        Sharing these costs no free block; sharing the rest takes them from the free ones.
        """
        pool = self.pools[group]
        return sum(pool.is_used(block) for block in self._find_blocks(request, group, num_blocks))

    def attach_prefix(self, request: Request, num_blocks: int) -> None:
        """Share the cached blocks that ``find_prefix`` counted."""
        for group, pool in enumerate(self.pools):
            blocks = self._find_blocks(request, group, num_blocks)
            request.blocks[group] = [block and pool.share(block) for block in blocks]
            request.window_starts[group] = blocks.count(0)
        request.num_computed_tokens = num_blocks * self.block_size
        if self._enable_prefix_caching:
            request.register_at = (num_blocks + 1) * self.block_size

    def _find_blocks(self, request: Request, group: int, num_blocks: int) -> list[int]:
        """The group's table for a hit: 0 for what lies behind the window."""
        window, pool = self.windows[group], self.pools[group]
        first = first_visible_block(num_blocks * self.block_size, window, self.block_size)
        found = [pool.find(block_hash) for block_hash in request.block_hashes[first:num_blocks]]
        return [0] * first + [block for block in found if block is not None]

    def register(self, request: Request) -> None:
        """Enter blocks that became full into the prefix cache."""
        num_full_blocks = request.num_computed_tokens // self.block_size
        first = request.register_at // self.block_size - 1
        hashes = hash_blocks(request, num_full_blocks, self.block_size)
        for pool, table in zip(self.pools, request.blocks, strict=True):
            for index in range(first, num_full_blocks):
                if table[index]:
                    pool.register(table[index], hashes[index])
        request.register_at = (num_full_blocks + 1) * self.block_size

    def forget_content(self, request: Request) -> None:
        """Take every block with this request's content out of the prefix cache, whoever holds it.

        By hash, not by its table: blocks that fell out of a window may still be cached.
        """
        for pool in self.pools:
            for block_hash in request.block_hashes:
                pool.forget(block_hash)

    def can_swap_out(self, request: Request) -> bool:
        """The host has room for what the request has computed."""
        num_blocks = -(-request.num_computed_tokens // self.block_size)
        return num_blocks > 0 and all(
            host_pool.num_free >= num_blocks - start
            for host_pool, start in zip(self.host_pools, request.window_starts, strict=True)
        )

    def swap_out(self, request: Request) -> None:
        """Move the computed blocks to the host; the device blocks may be reused at once."""
        self._free_behind_window(request)
        num_blocks = -(-request.num_computed_tokens // self.block_size)
        for group, host_pool in enumerate(self.host_pools):
            start = request.window_starts[group]
            device_blocks = request.blocks[group][start:num_blocks]
            request.host_blocks[group] = host_pool.allocate(len(device_blocks))
            pairs = zip(device_blocks, request.host_blocks[group], strict=True)
            self.swap_out_pairs[group].extend(pairs)
            self.pools[group].release(reversed(request.blocks[group]))
            request.blocks[group] = []
        request.writable_tokens = 0

    def swap_in(self, request: Request) -> None:
        """Bring the blocks back into new device blocks.

        NOTE: swaps out run before swaps in on the device, so host blocks freed here must not be
        given to a swap out of the same step; the scheduler does all preemption first.
        """
        for group, host_pool in enumerate(self.host_pools):
            host_blocks = request.host_blocks[group]
            device_blocks = self.pools[group].allocate(len(host_blocks))
            self.swap_in_pairs[group].extend(zip(host_blocks, device_blocks, strict=True))
            host_pool.release(host_blocks)
            request.host_blocks[group] = []
            request.blocks[group] = [0] * request.window_starts[group] + device_blocks
        if self._enable_prefix_caching:
            request.register_at = self.block_size  # new blocks: enter them once the step has run
