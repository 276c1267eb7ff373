"""Which leading blocks of a request are already in the cache: chained hashes and their lookup."""

from __future__ import annotations

import struct
from collections.abc import Hashable, Sequence
from hashlib import blake2b

from octavo.blocks import BlockPool
from octavo.errors import UsageError
from octavo.request import Request

__all__ = ["chain_hash", "find_hit", "first_visible_block", "hash_blocks", "root_hash"]

_DIGEST_BYTES = 32  # long enough that equal digests mean equal content


def root_hash(cache_salt: Hashable | None) -> bytes:
    """Where the chain of a salt starts.

    The salt enters by its repr, so it must consist of types whose repr says all: None, bool, int,
    float, str, bytes, and tuples of these. Raises UsageError for others.
    """
    _check_salt(cache_salt)
    return blake2b(repr(cache_salt).encode(), digest_size=_DIGEST_BYTES).digest()


def _check_salt(cache_salt: object) -> None:
    if type(cache_salt) is tuple:
        for part in cache_salt:
            _check_salt(part)
    elif cache_salt is not None and type(cache_salt) not in (bool, int, float, str, bytes):
        raise UsageError(
            f"cache_salt holds {cache_salt!r} of type {type(cache_salt).__name__}; it may hold "
            "None, bool, int, float, str, bytes and tuples of these: pass a digest of the object"
        )


def chain_hash(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """Hash of a full block, given the hash of the block before it (or the root)."""
    packed = struct.pack(f"<{len(token_ids)}q", *token_ids)
    return blake2b(parent + packed, digest_size=_DIGEST_BYTES).digest()


def hash_blocks(request: Request, num_blocks: int, block_size: int) -> list[bytes]:
    """The request's hashes, extended to at least its first ``num_blocks`` blocks (all full)."""
    hashes = request.block_hashes
    while len(hashes) < num_blocks:
        start = len(hashes) * block_size
        parent = hashes[-1] if hashes else root_hash(request.cache_salt)
        hashes.append(chain_hash(parent, request.token_ids(start, start + block_size)))
    return hashes


def first_visible_block(num_computed_tokens: int, window: int | None, block_size: int) -> int:
    """Index of the first block that a query at position ``num_computed_tokens`` or later reads."""
    if window is None:
        return 0
    return max(0, num_computed_tokens - window + 1) // block_size


def find_hit(
    request: Request, pools: Sequence[BlockPool], windows: Sequence[int | None], block_size: int
) -> int:
    """How many leading blocks need not be computed; at least one token always is.

    A group without a window needs all of them in its pool, a sliding group only those which the
    next query can see.
    """
    hit = (request.num_tokens - 1) // block_size
    full_pools = [pool for pool, window in zip(pools, windows, strict=True) if window is None]
    if full_pools:
        hit = _count_leading(request, full_pools, hit, block_size)
    hashes = hash_blocks(request, hit, block_size)
    sliding = [(pool, window) for pool, window in zip(pools, windows, strict=True) if window]
    while hit:
        missing = max(
            (_last_missing(hashes, pool, window, hit, block_size) for pool, window in sliding),
            default=-1,
        )
        if missing < 0:
            break
        # All hits from here down to the missing block would need that block too.
        hit = missing
    return hit


def _count_leading(
    request: Request, pools: Sequence[BlockPool], max_blocks: int, block_size: int
) -> int:
    """Leading blocks that all the pools have; hashes no further than the first miss."""
    for index in range(max_blocks):
        block_hash = hash_blocks(request, index + 1, block_size)[index]
        if any(pool.find(block_hash) is None for pool in pools):
            return index
    return max_blocks


def _last_missing(
    hashes: Sequence[bytes], pool: BlockPool, window: int, hit: int, block_size: int
) -> int:
    """Highest block below ``hit`` that the window needs and the pool lacks; -1 if none."""
    first = first_visible_block(hit * block_size, window, block_size)
    for index in range(hit - 1, first - 1, -1):
        if pool.find(hashes[index]) is None:
            return index
    return -1
