"""Where a step's intermediate results lie: those that are not needed at once share memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Lifetime", "place"]

_ALIGNMENT_BYTES = 64


@dataclass(frozen=True)
class Lifetime:
    """From the instruction that writes a result to the last one that reads it."""

    first: int
    last: int
    num_bytes: int


def place(lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    """(offset of each in bytes, bytes in all): each in the first gap between those still alive.

    Sizes may be those of one row: with the offsets multiplied by the number of rows, results of
    any number of rows keep apart.
    """
    offsets = [0] * len(lifetimes)
    total = 0
    alive: list[tuple[int, int, int]] = []  # offset, end, last instruction; by offset
    for index in sorted(range(len(lifetimes)), key=lambda index: lifetimes[index].first):
        lifetime = lifetimes[index]
        alive = [held for held in alive if held[2] >= lifetime.first]
        size = -(-lifetime.num_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        offset = 0
        for held in alive:
            if held[0] - offset >= size:
                break
            offset = max(offset, held[1])
        alive.append((offset, offset + size, lifetime.last))
        alive.sort()
        offsets[index] = offset
        total = max(total, offset + size)
    return offsets, total
