"""Checks of reading and writing by blocks: order means nothing, and nobody reads or harms others.

Attention over one layout is compared with attention over another, so that no oracle is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from octavo.testing.checks.paging_cases import (
    first_blocks,
    paging_check,
    require_exact,
    require_same,
    require_stored,
)
from octavo.testing.manual_cache import CacheShape, Floats, Held, ManualCache, Tokens
from octavo.testing.subject import Subject

__all__ = ["CHECKS"]


def _mixed(shape: CacheShape) -> list[tuple[Tokens, int]]:
    """A long decode, a whole prompt, a chunk from within a block, and a decode on a block's edge.

    Each with the tokens that lie in the cache before the step. At most five blocks each.
    """
    size = shape.block_size
    parts = ((5 * size - 1, 1), (0, size + 1), (size - 1, size + 2), (2 * size, 1))
    return [
        (Tokens.random(shape, past + new, seed), past) for seed, (past, new) in enumerate(parts)
    ]


def _laid_out(
    subject: Subject, shape: CacheShape, tables: Sequence[Sequence[int]], order: Sequence[int]
) -> list[Floats]:
    """What the sequences of ``_mixed`` read in these blocks, computed in this order."""
    held = [
        Held(tokens, tuple(table), past)
        for (tokens, past), table in zip(_mixed(shape), tables, strict=True)
    ]
    cache = ManualCache(subject, shape, 1 + max(map(max, tables)))
    cache.write(*(each.upto(each.past, 0) for each in held if each.past))
    ordered = [held[index] for index in order]
    cache.write(*ordered)
    results = cache.read(*ordered)
    return [results[list(order).index(index)] for index in range(len(held))]


def _in_order(count: int = 5) -> list[tuple[int, ...]]:
    return [first_blocks(1 + count * seq, count) for seq in range(4)]


def _compare_layout(
    subject: Subject,
    shape: CacheShape,
    what: str,
    tables: Sequence[Sequence[int]],
    order: Sequence[int] = (0, 1, 2, 3),
) -> None:
    expected = _laid_out(subject, shape, _in_order(), (0, 1, 2, 3))
    found = _laid_out(subject, shape, tables, order)
    require_same(subject, shape, what, found, expected)


def _backwards(subject: Subject, shape: CacheShape) -> None:
    tables = [table[::-1] for table in _in_order()]
    _compare_layout(subject, shape, "Blocks in descending order", tables)


def _interleaved(subject: Subject, shape: CacheShape) -> None:
    tables = [tuple(1 + seq + 4 * nth for nth in range(5)) for seq in range(4)]
    _compare_layout(subject, shape, "Blocks of several sequences in turns", tables)


def _scattered(subject: Subject, shape: CacheShape) -> None:
    tables = [tuple(1 + (7 * (5 * seq + nth) + 3) % 41 for nth in range(5)) for seq in range(4)]
    _compare_layout(subject, shape, "Blocks in no order", tables)


def _rotated(subject: Subject, shape: CacheShape) -> None:
    _compare_layout(subject, shape, "Sequences rotated by one", _in_order(), (1, 2, 3, 0))


def _reversed(subject: Subject, shape: CacheShape) -> None:
    _compare_layout(subject, shape, "Sequences in reverse", _in_order(), (3, 2, 1, 0))


def _long_among_many(subject: Subject, shape: CacheShape) -> None:
    """A prompt of several tiles, computed whole and alone, or in parts beside many others."""
    length, count = 300, 70
    num_blocks = -(-length // shape.block_size)
    held = Held(Tokens.random(shape, length, 1), first_blocks(1 + count, num_blocks))
    others = [Held(Tokens.random(shape, 1, 2 + nth), (1 + nth,)) for nth in range(count)]
    cache = ManualCache(subject, shape, 1 + count + num_blocks)
    cache.write(held, *others)
    (whole,) = cache.read(held)
    for start in (50, 130, 299):
        (part, *_) = cache.read(replace(held, past=start))
        what = f"The last {length - start} of {length} tokens, apart from those before them"
        require_same(subject, shape, what, [part], [whole[start:]])
    (begin,) = cache.read(held.upto(40, 0))
    what = f"The first 40 of {length} tokens, apart from those after them"
    require_same(subject, shape, what, [begin], [whole[:40]])
    (_, beside, *_) = cache.read(others[0], held, *others[1:])
    what = f"A prompt of {length} tokens beside {count} other sequences"
    require_same(subject, shape, what, [beside], [whole])


def _unowned(subject: Subject, shape: CacheShape) -> None:
    """Sequences that leave parts of blocks unused, with poison or zeros around them."""
    tables = [(2, 5, 3, 9, 7), (4, 1), (8, 6, 11), (10, 12, 14)]
    results = []
    for poison in (0.0, shape.poison):
        held = [
            Held(tokens, table, past)
            for (tokens, past), table in zip(_mixed(shape), tables, strict=True)
        ]
        cache = ManualCache(subject, shape, 16, poison=poison)
        cache.write(*(each.upto(each.past, 0) for each in held if each.past))
        cache.write(*held)
        results.append(cache.read(*held))
    require_same(subject, shape, "Poison in slots that nobody owns", results[1], results[0])


def _padding(subject: Subject, shape: CacheShape) -> None:
    """Padded tokens with NaN for q, k and v, and padded sequences, beside the real ones."""
    held = [
        Held(tokens, table, past)
        for (tokens, past), table in zip(_mixed(shape), _in_order(), strict=True)
    ]
    cache = ManualCache(subject, shape, 21)
    cache.write(*(each.upto(each.past, 0) for each in held if each.past), padded_tokens=2)
    bare = cache.attend(*held)
    for padding in ({"padded_tokens": 3}, {"padded_tokens": 5, "padded_seqs": 2}):
        padded = cache.attend(*held, **padding)
        counts = ", ".join(f"{count} {name}" for name, count in padding.items())
        require_same(subject, shape, f"A step with {counts} of NaN", padded, bare)
        after = cache.read(*held)
        require_same(subject, shape, f"The step after one with {counts} of NaN", after, bare)


def _neighbours(subject: Subject, shape: CacheShape) -> None:
    """One sequence grows token by token between the blocks of two others."""
    size = shape.block_size
    below = Held(Tokens.lookup(shape, 2 * size, 1), (1, 3))
    above = Held(Tokens.lookup(shape, 2 * size - 1, 2), (5, 7))
    growing = Held(Tokens.lookup(shape, 3 * size, 3), (4, 2, 6))
    cache = ManualCache(subject, shape, 9)
    cache.write(below, above)
    before = cache.read(below, above)
    cache.write(growing.upto(1, 0))
    for length in range(2, len(growing.tokens) + 1):
        cache.write(growing.upto(length, length - 1))
        what = f"After another sequence wrote its token {length - 1} into a block beside theirs"
        require_exact(what, cache.read(below, above), before)


def _by_steps(subject: Subject, shape: CacheShape) -> None:
    """A sequence written in many steps, each into the cache that the one before returned."""
    size = shape.block_size
    held = Held(Tokens.lookup(shape, 3 * size + 1, 1), (3, 1, 4, 2))
    at_once = ManualCache(subject, shape, 5)
    at_once.write(held)
    expected = at_once.read(held)
    for chunk in sorted({1, size + 1, max(1, size - 1)}):
        cache = ManualCache(subject, shape, 5)
        for start in range(0, len(held.tokens), chunk):
            cache.write(held.upto(min(start + chunk, len(held.tokens)), start))
        what = f"After writes of {chunk} tokens, each to the cache that write_kv returned last"
        require_stored(subject, shape, what, cache.read(held), expected)


def _by_attend(subject: Subject, shape: CacheShape) -> None:
    """The composite writes as write_kv does, and its cache is the one to go on with."""
    size = shape.block_size
    held = Held(Tokens.lookup(shape, 2 * size + 1, 1), (2, 3, 1))
    one_by_one = ManualCache(subject, shape, 4)
    one_by_one.write(held)
    expected = one_by_one.read(held)
    cache = ManualCache(subject, shape, 4)
    for end, start in ((size + 1, 0), (size + 2, size + 1), (len(held.tokens), size + 2)):
        attended = cache.attend(held.upto(end, start))
        what = f"The result of attend for tokens {start} to {end - 1}"
        require_stored(subject, shape, what, attended, [expected[0][start:end]])
    what = "The cache that attend returned"
    require_stored(subject, shape, what, cache.read(held), expected)


def _recycled(subject: Subject, shape: CacheShape) -> None:
    """Blocks that another sequence held before, longer than the one that holds them now."""
    size = shape.block_size
    new = Held(Tokens.random(shape, size + 2, 1), (3, 1))
    fresh = ManualCache(subject, shape, 4)
    fresh.write(new)
    expected = fresh.read(new)
    used = ManualCache(subject, shape, 4)
    old = Tokens.random(shape, 3 * size, 2)
    loud = replace(old, k=50 * old.k, v=50 * old.v)  # to be seen wherever they are let in
    used.write(Held(loud, (1, 2, 3)))
    used.write(new)
    what = "In blocks that another sequence held before"
    require_same(subject, shape, what, used.read(new), expected)


CHECKS = (
    paging_check(
        "layout",
        "neither the order of blocks nor that of sequences changes what a sequence reads",
        "ops.paged_attention and backend.plan: how the block table is followed",
        {
            "blocks backwards": _backwards,
            "blocks interleaved": _interleaved,
            "blocks scattered": _scattered,
            "sequences rotated": _rotated,
            "sequences reversed": _reversed,
        },
        large={"long, in parts and among many": _long_among_many},
    ),
    paging_check(
        "poison",
        "NaN in unowned slots and in padding reaches no result",
        "ops.paged_attention: mask values as well as scores; ops.write_kv: padding goes to slot 0",
        {"unowned slots": _unowned, "padding": _padding},
    ),
    paging_check(
        "writes",
        "a write reaches its own slots and no others, and lasts in the cache that was returned",
        "ops.write_kv, and ops.attend where it is overridden",
        {
            "neighbours": _neighbours,
            "many steps": _by_steps,
            "attend": _by_attend,
            "recycled blocks": _recycled,
        },
    ),
)
