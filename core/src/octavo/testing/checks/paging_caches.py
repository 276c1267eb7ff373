"""Checks of several caches side by side: KV groups with a table each, and layers of one group."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from octavo.testing.check import CheckFailure
from octavo.testing.checks.paging_cases import (
    first_blocks,
    paging_check,
    require_exact,
    require_same,
)
from octavo.testing.manual_cache import CacheShape, Held, ManualCache, Tokens, step_batch
from octavo.testing.placed_plans import placed_plans
from octavo.testing.subject import Subject

if TYPE_CHECKING:
    from octavo.batch import StepBatch

__all__ = ["CHECKS"]

_NUM_CACHES = 18  # as many as a small model has layers
_TABLES = (((1, 2, 3), (4, 5)), ((5, 4, 1), (3, 2)), ((2, 5, 4), (1, 3)))  # group, sequence


def _groups_of(shape: CacheShape) -> list[list[Held]]:
    """The same two sequences' keys and values in three groups: others in each."""
    size = shape.block_size
    lengths = ((2 * size + 1, 2 * size), (size + 2, 0))
    return [
        [
            Held(Tokens.random(shape, length, 10 * group + seq), table, past)
            for seq, ((length, past), table) in enumerate(zip(lengths, tables, strict=True))
        ]
        for group, tables in enumerate(_TABLES)
    ]


def _joint_batch(subject: Subject, shape: CacheShape, groups: list[list[Held]]) -> StepBatch:
    """One batch in which every group has its own table."""
    batches = [step_batch(shape, held) for held in groups]
    tables = tuple(batch.groups[0] for batch in batches)
    return subject.buckets.pad_batch(replace(batches[0], groups=tables))


def _own_tables(subject: Subject, shape: CacheShape) -> None:
    """Three groups in one batch read and write as they would in batches of their own."""
    groups = _groups_of(shape)
    batch = _joint_batch(subject, shape, groups)
    plans = placed_plans(subject.backend, batch, shape.block_size)
    if len(plans) != len(groups):
        raise CheckFailure(
            f"plan returned {len(plans)} plans for a batch of {len(groups)} KV groups; expected "
            "one for each, in order."
        )
    for index, (held, plan) in enumerate(zip(groups, plans, strict=True)):
        apart, joint = (ManualCache(subject, shape, 7) for _ in range(2))
        for cache in (apart, joint):
            cache.write(*(each.upto(each.past, 0) for each in held if each.past))
        apart.write(*held)
        joint.write_with(plan, held, len(batch.token_ids))
        whole = [Held(each.tokens, each.blocks) for each in held]
        what = f"KV group {index} of {len(groups)}"
        written = f"{what}, written through its plan among others"
        require_same(subject, shape, written, joint.read(*whole), apart.read(*whole))
        found = joint.read_with(plan, held, len(batch.token_ids))
        read = f"{what}, read through its plan among others"
        require_same(subject, shape, read, found, apart.read(*held))


def _independent(subject: Subject, shape: CacheShape) -> None:
    """Caches of one spec, one after the other, each with content of its own."""
    caches, contents = [], []
    for layer in range(_NUM_CACHES):
        cache = ManualCache(subject, shape, 3)
        held = Held(Tokens.lookup(shape, shape.block_size, layer), (1 + layer % 2,))
        cache.write(held)
        caches.append(cache)
        contents.append((held, cache.read(held)))
    for layer, (cache, (held, expected)) in enumerate(zip(caches, contents, strict=True)):
        what = f"Cache {layer} of {_NUM_CACHES} of one spec, after the others were written"
        require_exact(what, cache.read(held), expected)


def _different_sizes(subject: Subject, shape: CacheShape) -> None:
    """A large cache beside a small one of the same spec, written in turns."""
    small, large = (ManualCache(subject, shape, count) for count in (3, 9))
    held = Held(Tokens.lookup(shape, 2 * shape.block_size, 1), (1, 2))
    small.write(held)
    before = small.read(held)
    large.write(Held(Tokens.lookup(shape, 8 * shape.block_size, 2), first_blocks(1, 8)))
    what = "A small cache, after a larger one of the same spec was written"
    require_exact(what, small.read(held), before)


CHECKS = (
    paging_check(
        "groups",
        "each KV group of a batch reads and writes through its own block table",
        "backend.plan: one plan for each of batch.groups, in order",
        {"three groups": _own_tables},
    ),
    paging_check(
        "caches",
        "each call of make_kv gives a cache of its own",
        "backend.make_kv: nothing shared between layers of equal spec",
        {"layers": _independent, "two sizes": _different_sizes},
    ),
)
