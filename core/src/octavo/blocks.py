"""Physical KV blocks of one group: who is used, shared, cached or free; ids only, no memory."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Sequence

from octavo.scheduling.invariant import require

__all__ = ["BlockPool", "HostPool"]


class BlockPool:
    """Device blocks 1..num_blocks-1 with reference counts; block 0 is padding and never given out.

    A block is in one of three states::

        unused --allocate--> used --release (without a hash)--> unused
                              |^
              release (hashed)||share (prefix hit)
                              v|
        unused <--evict------ cached (references 0, content known, oldest evicted first)
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._ref_counts = [0] * num_blocks
        self._unused = list(range(num_blocks - 1, 0, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._hashes: list[bytes | None] = [None] * num_blocks
        self._blocks_by_hash: dict[bytes, int] = {}
        self._pinned: set[int] = set()

    @property
    def num_free(self) -> int:
        """Blocks that ``allocate`` can give, cached ones included."""
        return len(self._unused) + len(self._cached)

    @property
    def num_cached(self) -> int:
        """Free blocks that still hold a known prefix."""
        return len(self._cached)

    @property
    def num_usable(self) -> int:
        """All blocks but the reserved block 0."""
        return self.num_blocks - 1

    @property
    def reference_counts(self) -> Sequence[int]:
        """Of every block, block 0 included; only to be read."""
        return self._ref_counts

    @property
    def cached_blocks(self) -> Collection[int]:
        """Free blocks that still hold a known prefix; only to be read."""
        return self._cached.keys()

    def allocate(self, count: int) -> list[int]:
        """Blocks with one reference each; the caller has checked ``num_free``."""
        unused = self._unused
        blocks = [unused.pop() if unused else self._evict() for _ in range(count)]
        for block in blocks:
            self._ref_counts[block] = 1
        return blocks

    def share(self, block: int) -> int:
        """One more reference to a used or cached block; returns the block."""
        if self._ref_counts[block] == 0:
            del self._cached[block]
        self._ref_counts[block] += 1
        return block

    def release(self, blocks: Iterable[int]) -> None:
        """One reference less for each; pass the tail of a chain first, so that it is evicted first.

        Zeros (entries freed earlier) are skipped.
        """
        ref_counts = self._ref_counts
        for block in blocks:
            if block == 0:
                continue
            ref_counts[block] -= 1
            if ref_counts[block] == 0:
                if self._hashes[block] is None:
                    self._unused.append(block)
                else:
                    self._cached[block] = None

    def pin(self, block: int) -> None:
        """Keep a block from being handed out until ``unpin_all``: a pending copy reads it."""
        if block not in self._pinned:
            self._pinned.add(block)
            self._ref_counts[block] += 1

    def unpin_all(self) -> None:
        """The step is complete; later copies run after this step's."""
        if self._pinned:
            self.release(self._pinned)
            self._pinned.clear()

    def is_shared(self, block: int) -> bool:
        """More than one request holds it."""
        return self._ref_counts[block] - (block in self._pinned) > 1

    def is_used(self, block: int) -> bool:
        """Some request holds it."""
        return self._ref_counts[block] > 0

    def find(self, block_hash: bytes) -> int | None:
        """The block that holds this content, used or cached."""
        return self._blocks_by_hash.get(block_hash)

    def register(self, block: int, block_hash: bytes) -> None:
        """Make a full, used block findable; a second block of the same content stays private."""
        if block_hash not in self._blocks_by_hash and self._hashes[block] is None:
            self._blocks_by_hash[block_hash] = block
            self._hashes[block] = block_hash

    def unregister(self, block: int) -> None:
        """Forget the content of a block that is about to be overwritten."""
        block_hash = self._hashes[block]
        if block_hash is not None:
            del self._blocks_by_hash[block_hash]
            self._hashes[block] = None

    def forget(self, block_hash: bytes) -> None:
        """Let nobody find this content any more; who holds the block keeps it."""
        block = self._blocks_by_hash.get(block_hash)
        if block is None:
            return
        self.unregister(block)
        if block in self._cached:
            del self._cached[block]
            self._unused.append(block)

    def forget_cached(self) -> int:
        """Turn cached blocks into unused ones; returns how many."""
        num_cached = len(self._cached)
        while self._cached:
            self._unused.append(self._evict())
        return num_cached

    def _evict(self) -> int:
        block, _ = self._cached.popitem(last=False)
        self.unregister(block)
        return block

    def check_integrity(self, tables: Sequence[Sequence[int]]) -> None:
        """Prove that counts, free lists and hashes agree with ``tables``, all the block tables."""
        expected = Counter(block for table in tables for block in table if block)
        counted = {block: count for block, count in enumerate(self._ref_counts) if count}
        require(counted == expected, f"references counted {counted}, in tables {expected}")
        free = [*self._unused, *self._cached]
        idle = sorted(set(range(1, self.num_blocks)) - set(expected))
        require(sorted(free) == idle, f"free blocks {sorted(free)}, without a reference {idle}")
        hashed = {block: h for block, h in enumerate(self._hashes) if h is not None}
        found = {block: h for h, block in self._blocks_by_hash.items()}
        require(hashed == found, f"blocks with a hash {hashed}, blocks found by hash {found}")
        require(hashed.keys() >= self._cached.keys(), "a cached block has no hash")
        require(hashed.keys().isdisjoint(self._unused), "an unused block has a hash")
        require(not self._pinned, f"blocks {self._pinned} stay pinned after their step")


class HostPool:
    """Host blocks 0..num_blocks-1 for swapping; each has one owner or none."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))

    @property
    def num_free(self) -> int:
        """Blocks that ``allocate`` can give."""
        return len(self._free)

    def allocate(self, count: int) -> list[int]:
        """``count`` blocks; the caller has checked ``num_free``."""
        return [self._free.pop() for _ in range(count)]

    def release(self, blocks: Iterable[int]) -> None:
        """Take blocks back."""
        self._free.extend(blocks)

    def check_integrity(self, tables: Sequence[Sequence[int]]) -> None:
        """Prove that every block is free or in exactly one of ``tables``."""
        blocks = sorted([*self._free, *(block for table in tables for block in table)])
        require(blocks == list(range(self.num_blocks)), f"host blocks free or owned: {blocks}")
