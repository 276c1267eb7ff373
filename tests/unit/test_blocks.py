"""Blocks of one group: who gets which, when it may be given again, what stays findable."""

from __future__ import annotations

import hashlib

import pytest

from octavo.blocks import BlockPool, HostPool
from octavo.errors import UsageError
from octavo.prefix_cache import chain_hash, find_hit, first_visible_block, root_hash
from octavo.request import Request


def test_block_zero_is_never_handed_out():
    pool = BlockPool(5)
    assert pool.num_free == 4
    assert sorted(pool.allocate(4)) == [1, 2, 3, 4]
    assert pool.num_free == 0


def test_a_shared_block_is_free_only_after_its_last_release():
    pool = BlockPool(3)
    [block] = pool.allocate(1)
    pool.share(block)
    assert pool.is_shared(block)
    pool.release([block])
    assert not pool.is_shared(block)
    assert pool.num_free == 1
    pool.release([block])
    assert pool.num_free == 2
    pool.check_integrity([])


def test_released_content_is_found_again_until_its_block_is_needed():
    pool = BlockPool(4)
    blocks = pool.allocate(2)
    pool.register(blocks[0], b"first")
    pool.register(blocks[1], b"second")
    pool.release(reversed(blocks))
    assert (pool.num_free, pool.num_cached) == (3, 2)
    assert pool.share(pool.find(b"first")) == blocks[0]
    pool.release([blocks[0]])
    others = pool.allocate(2)  # the unused block, then the least recently used
    assert blocks[1] in others
    assert pool.find(b"second") is None
    assert pool.find(b"first") == blocks[0]
    pool.check_integrity([others])


def test_the_tail_of_a_chain_is_evicted_first():
    pool = BlockPool(4)
    chain = pool.allocate(3)
    for block in chain:
        pool.register(block, bytes([block]))
    pool.release(reversed(chain))
    assert pool.allocate(2) == [chain[2], chain[1]]


def test_a_second_block_of_the_same_content_stays_private():
    pool = BlockPool(4)
    first, second = pool.allocate(2)
    pool.register(first, b"same")
    pool.register(second, b"same")
    assert pool.find(b"same") == first
    pool.release([second])
    assert (pool.num_free, pool.num_cached) == (2, 0)
    pool.check_integrity([[first]])


def test_a_pinned_block_cannot_be_handed_out_and_does_not_count_as_shared():
    pool = BlockPool(3)
    [source] = pool.allocate(1)
    pool.pin(source)
    pool.pin(source)
    assert not pool.is_shared(source)
    pool.release([source])
    assert pool.num_free == 1
    assert pool.allocate(1) != [source]
    pool.unpin_all()
    assert pool.allocate(1) == [source]


def test_forgetting_the_cache_spares_blocks_in_use():
    pool = BlockPool(4)
    used, idle = pool.allocate(2)
    pool.register(used, b"used")
    pool.register(idle, b"idle")
    pool.release([idle])
    assert pool.forget_cached() == 1
    assert pool.find(b"idle") is None
    assert pool.find(b"used") == used
    pool.check_integrity([[used]])


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda pool: pool._ref_counts.__setitem__(1, 2), "references counted"),
        (lambda pool: pool._unused.append(1), "free blocks"),
        (lambda pool: pool._unused.pop(), "free blocks"),
        (lambda pool: pool._unused.append(0), "free blocks"),
        (lambda pool: pool._blocks_by_hash.clear(), "hash"),
        (lambda pool: pool._hashes.__setitem__(1, b"else"), "hash"),
        (lambda pool: pool.pin(1), "references counted"),
    ],
)
def test_integrity_check_finds_damage(break_it, complaint):
    pool = BlockPool(4)
    [block] = pool.allocate(1)
    pool.register(block, b"content")
    pool.check_integrity([[block]])
    break_it(pool)
    with pytest.raises(AssertionError, match=complaint):
        pool.check_integrity([[block]])


def test_host_blocks_have_one_owner():
    pool = HostPool(3)
    blocks = pool.allocate(2)
    assert pool.num_free == 1
    pool.check_integrity([blocks])
    with pytest.raises(AssertionError, match="host blocks"):
        pool.check_integrity([])
    pool.release(blocks)
    pool.check_integrity([])


def test_a_hash_depends_on_salt_parent_tokens_and_their_order():
    hashes = [
        chain_hash(root_hash(None), [1, 2]),
        chain_hash(root_hash(None), [2, 1]),
        chain_hash(root_hash("tenant"), [1, 2]),
        chain_hash(root_hash(("tenant",)), [1, 2]),
        chain_hash(root_hash(b"tenant"), [1, 2]),
        chain_hash(chain_hash(root_hash(None), [1, 2]), [1, 2]),
        chain_hash(root_hash(None), [1, 2, 0]),
        chain_hash(root_hash(None), [1, 2 + 2**32]),
    ]
    assert len(set(hashes)) == len(hashes)
    assert chain_hash(root_hash(("a", 1)), (1, 2)) == chain_hash(root_hash(("a", 1)), [1, 2])


def test_the_same_tokens_hash_alike_on_every_machine():
    root = hashlib.blake2b(b"('lora', 3)", digest_size=32).digest()
    packed = b"".join(token.to_bytes(8, "little") for token in (5, 70_000, 1))
    expected = hashlib.blake2b(root + packed, digest_size=32).digest()
    assert chain_hash(root_hash(("lora", 3)), [5, 70_000, 1]) == expected


@pytest.mark.parametrize("salt", [object(), frozenset({1}), ("a", object())])
def test_a_salt_whose_repr_does_not_say_all_is_refused(salt):
    with pytest.raises(UsageError, match="pass a digest"):
        root_hash(salt)


@pytest.mark.parametrize("window", [None, 1, 2, 3, 4, 7, 8, 9])
def test_first_visible_block_holds_the_first_visible_position(window):
    for query in range(40):
        visible = [k for k in range(query + 1) if window is None or k > query - window]
        assert first_visible_block(query, window, 4) == visible[0] // 4


def make_cached(missing, num_blocks, block_size=2):
    """A pool which holds the first blocks of the tokens 0, 1, 2, ... save the missing ones."""
    pool = BlockPool(num_blocks + 1)
    parent = root_hash(None)
    for index in range(num_blocks):
        parent = chain_hash(parent, range(index * block_size, (index + 1) * block_size))
        if index not in missing:
            pool.register(pool.allocate(1)[0], parent)
    return pool


@pytest.mark.parametrize("window", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("missing_full", [set(), {0}, {4}])
@pytest.mark.parametrize("missing_sliding", [set(), {0}, {3}, {5}, {1, 4}, {0, 2, 3, 5}])
def test_longest_hit_is_what_brute_force_finds(window, missing_full, missing_sliding):
    pools = [make_cached(missing_full, 6), make_cached(missing_sliding, 6)]

    def is_hit(num_blocks, missing_full):
        next_query = 2 * num_blocks
        visible = {k // 2 for k in range(next_query) if k > next_query - window}
        return not (missing_full & set(range(num_blocks)) or missing_sliding & visible)

    for num_tokens in (1, 2, 3, 4, 5, 12, 13):
        request = Request("a", list(range(num_tokens)), max_tokens=1)
        counts = [count for count in range(7) if 2 * count < num_tokens]
        both = max(count for count in counts if is_hit(count, missing_full))
        assert find_hit(request, pools, [None, window], 2) == both
        sliding = max(count for count in counts if is_hit(count, set()))
        assert find_hit(request, pools[1:], [window], 2) == sliding
