"""Checks of copy_blocks: forks within a cache, and swaps to the host and back, to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from octavo.testing.checks.paging_cases import (
    first_blocks,
    paging_check,
    require_exact,
    require_same,
    require_stored,
)
from octavo.testing.manual_cache import CacheShape, Held, ManualCache, Tokens
from octavo.testing.subject import Subject

__all__ = ["CHECKS"]

_NUM_SEQS = 20  # of two blocks each: more pairs than one warp, or a list of eight, has room for


class _Reader:
    """A cache with a sequence to look up and one to attend to, and what both read at first."""

    def __init__(self, subject: Subject, shape: CacheShape, num_blocks: int) -> None:
        size = shape.block_size
        self.subject, self.shape = subject, shape
        self.cache = ManualCache(subject, shape, num_blocks)
        self.exact = Held(Tokens.lookup(shape, 3 * size - 1, 1), (1, 2, 3))
        self.random = Held(Tokens.random(shape, 2 * size + 1, 2), (4, 5, 6))
        self.cache.write(self.exact, self.random)
        self.at_first = self.cache.read(self.exact, self.random)

    def require(self, what: str, exact: Sequence[int], random: Sequence[int]) -> None:
        """Both read in these blocks what they read at first."""
        found = self.cache.read(self.exact.moved(exact), self.random.moved(random))
        require_exact(what, found[:1], self.at_first[:1])
        require_same(self.subject, self.shape, what, found[1:], self.at_first[1:])


def _one_to_one(subject: Subject, shape: CacheShape) -> None:
    """Each block to one other, in no order; sources stay as they are."""
    reader = _Reader(subject, shape, 14)
    reader.cache.copy([(2, 9), (1, 12), (6, 7), (3, 8), (4, 13), (5, 10)])
    reader.require("Copied blocks", (12, 9, 8), (13, 10, 7))
    reader.require("The blocks that were copied from", (1, 2, 3), (4, 5, 6))


def _one_to_many(subject: Subject, shape: CacheShape) -> None:
    """One source for several targets, as in a fork of n answers."""
    reader = _Reader(subject, shape, 14)
    reader.cache.copy([(3, 7), (3, 8), (3, 9), (6, 10), (6, 11), (6, 12)])
    for exact, random in ((7, 10), (8, 11), (9, 12)):
        what = f"One of several copies of a block (block {exact} of 3, block {random} of 6)"
        reader.require(what, (1, 2, exact), (4, 5, random))


def _no_pairs(subject: Subject, shape: CacheShape) -> None:
    """An empty list of pairs copies nothing."""
    reader = _Reader(subject, shape, 8)
    reader.cache.copy([])
    reader.require("After an empty list of pairs", (1, 2, 3), (4, 5, 6))


def _diverging(subject: Subject, shape: CacheShape) -> None:
    """Two forks share full blocks, copy the last, and write different tokens to it."""
    size = shape.block_size
    left, right = (Tokens.lookup(shape, 3 * size, seed) for seed in (1, 2))
    right = Tokens(right.q, right.k, np.concatenate([left.v[: size + 1], right.v[size + 1 :]]))
    start = size + 1  # tokens in common
    forks = [Held(left, (1, 2, 5)), Held(right, (1, 4, 6))]
    cache = ManualCache(subject, shape, 7)
    cache.write(forks[0].upto(start, 0))
    cache.copy([(2, 4)])
    for length in range(start + 1, len(left) + 1):
        cache.write(*(fork.upto(length, length - 1) for fork in forks))
    apart = ManualCache(subject, shape, 7)
    own = [fork.moved(blocks) for fork, blocks in zip(forks, ((1, 2, 3), (4, 5, 6)), strict=True)]
    apart.write(*own)
    what = "Two forks that went different ways"
    require_stored(subject, shape, what, cache.read(*forks), apart.read(*own))


def _many_sequences(
    subject: Subject, shape: CacheShape, num_blocks: int
) -> tuple[ManualCache, list[Held], list[Any]]:
    size = shape.block_size
    held = [
        Held(Tokens.lookup(shape, 2 * size, seed), first_blocks(1 + 2 * seed, 2))
        for seed in range(_NUM_SEQS)
    ]
    cache = ManualCache(subject, shape, num_blocks)
    cache.write(*held)
    return cache, held, cache.read(*held)


def _many_pairs(subject: Subject, shape: CacheShape) -> None:
    """Forty pairs in one call."""
    count = 2 * _NUM_SEQS
    cache, held, expected = _many_sequences(subject, shape, 2 * count + 1)
    cache.copy([(block, block + count) for block in range(count, 0, -1)])
    moved = [each.moved([block + count for block in each.blocks]) for each in held]
    require_exact(f"After {count} pairs in one call", cache.read(*moved), expected)


def _hundreds_of_pairs(subject: Subject, shape: CacheShape) -> None:
    """More pairs than a launch, or a buffer for their numbers, may have room for."""
    count = 1100
    small = replace(shape, head_dim=8)
    tokens = Tokens.random(small, count * shape.block_size, 1)
    held = Held(tokens, first_blocks(1, count), len(tokens) - 1)
    cache = ManualCache(subject, small, 2 * count + 1)
    cache.write(held.upto(len(tokens), 0))
    expected = cache.read(held)
    cache.copy([(block, block + count) for block in held.blocks])
    found = cache.read(held.moved(first_blocks(1 + count, count)))
    require_same(subject, small, f"After {count} pairs in one call", found, expected)


def _far_blocks(subject: Subject, shape: CacheShape) -> None:
    """Blocks whose numbers do not fit into 16 bits, signed or not."""
    small = replace(shape, head_dim=12)
    cache = ManualCache(subject, small, 65_540)
    held = Held(Tokens.lookup(small, 2 * shape.block_size, 1), (3, 65_539))
    cache.write(held)
    expected = cache.read(held)
    cache.copy([(3, 32_769), (65_539, 5)])
    found = cache.read(held.moved((32_769, 5)))
    require_exact("Blocks copied to and from beyond number 32767", found, expected)


def _between_caches(subject: Subject, shape: CacheShape) -> None:
    """From one cache on the device into another, which keeps what else it holds."""
    reader = _Reader(subject, shape, 8)
    other = ManualCache(subject, shape, 12)
    kept = Held(Tokens.lookup(shape, 2 * shape.block_size, 3), (1, 2))
    other.write(kept)
    before = other.read(kept)
    other.cache = reader.cache.copy_to(other.cache, [(1, 9), (2, 5), (3, 7)])
    found = other.read(reader.exact.moved((9, 5, 7)))
    require_exact("Blocks copied into another cache", found, reader.at_first[:1])
    require_exact("The other blocks of that cache", other.read(kept), before)
    reader.require("The cache that was copied from", (1, 2, 3), (4, 5, 6))


def _out_and_in(subject: Subject, shape: CacheShape) -> None:
    """To the host and back to other blocks, after the old ones went to somebody else."""
    reader = _Reader(subject, shape, 14)
    host = reader.cache.make_host(7)
    host = reader.cache.copy_to(host, [(1, 4), (2, 0), (3, 6), (4, 1), (5, 3), (6, 2)])
    reader.cache.write(Held(Tokens.lookup(shape, 6 * shape.block_size, 3), (6, 5, 4, 3, 2, 1)))
    reader.cache.copy_from(host, [(4, 12), (0, 7), (6, 9), (1, 8), (3, 13), (2, 10)])
    reader.require("Blocks swapped out and in again", (12, 7, 9), (8, 13, 10))


def _some_at_a_time(subject: Subject, shape: CacheShape) -> None:
    """Swapped out in two calls and in by two others; what stays on the host stays as it is."""
    reader = _Reader(subject, shape, 14)
    host = reader.cache.make_host(7)
    host = reader.cache.copy_to(host, [(1, 0), (2, 1), (3, 2)])
    host = reader.cache.copy_to(host, [(4, 3), (5, 4), (6, 5)])
    host = reader.cache.copy_to(host, [])
    reader.cache.write(Held(Tokens.lookup(shape, 6 * shape.block_size, 3), (1, 2, 3, 4, 5, 6)))
    reader.cache.copy_from(host, [(0, 7), (2, 9), (4, 11)])
    reader.cache.copy_from(host, [(1, 8), (3, 10), (5, 12)])
    reader.require("Blocks swapped some at a time", (7, 8, 9), (10, 11, 12))
    reader.cache.copy_from(host, [(0, 1), (1, 2), (2, 3)])
    reader.require("Blocks swapped in a second time", (1, 2, 3), (10, 11, 12))


def _many_swapped(subject: Subject, shape: CacheShape) -> None:
    """Forty pairs in one call, there and back."""
    count = 2 * _NUM_SEQS
    cache, held, expected = _many_sequences(subject, shape, count + 1)
    host = cache.make_host(count)
    host = cache.copy_to(host, [(block, count - block) for block in range(1, count + 1)])
    blank = Tokens.lookup(shape, shape.block_size, _NUM_SEQS)
    cache.write(*(Held(blank, (block,)) for block in range(1, count + 1)))
    cache.copy_from(host, [(count - block, block) for block in range(1, count + 1)])
    require_exact(f"After {count} pairs to the host and back", cache.read(*held), expected)


def _two_layers(subject: Subject, shape: CacheShape) -> None:
    """Two layers of one spec, each with swap space of its own."""
    caches = [ManualCache(subject, shape, 4) for _ in range(2)]
    held = [Held(Tokens.lookup(shape, shape.block_size, seed), (1,)) for seed in range(2)]
    for cache, each in zip(caches, held, strict=True):
        cache.write(each)
    expected = [cache.read(each) for cache, each in zip(caches, held, strict=True)]
    hosts = [cache.make_host(2) for cache in caches]
    hosts = [cache.copy_to(host, [(1, 1)]) for cache, host in zip(caches, hosts, strict=True)]
    for layer, (cache, host) in enumerate(zip(caches, hosts, strict=True)):
        cache.copy_from(host, [(1, 2)])
        what = f"Layer {layer} of two, swapped through host space of its own"
        require_exact(what, cache.read(held[layer].moved((2,))), expected[layer])


def _no_swap(subject: Subject) -> str | None:
    return None if subject.caps.host_swap else "caps.host_swap is False"


CHECKS = (
    paging_check(
        "copies",
        "blocks copied within the device are the same to the last bit, and no others change",
        "backend.copy_blocks with src and dst on the device",
        {
            "one to one": _one_to_one,
            "one to many": _one_to_many,
            "no pairs": _no_pairs,
            "diverging forks": _diverging,
            "many pairs": _many_pairs,
            "hundreds of pairs": _hundreds_of_pairs,
            "between caches": _between_caches,
        },
        large={"block ids beyond 32767": _far_blocks},
    ),
    paging_check(
        "swap",
        "blocks swapped to the host and back are the same to the last bit",
        "backend.copy_blocks with src or dst on the host, backend.make_kv(on_host=True)",
        {
            "out and in": _out_and_in,
            "some at a time": _some_at_a_time,
            "many pairs": _many_swapped,
            "two layers": _two_layers,
        },
        _no_swap,
    ),
)
