"""How a weight divides among the devices of a tensor-parallel group, said once for all of them.

A model names the axis and what must stay whole on it; nobody but the loader computes with that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Part", "Split", "SplitAxis"]

SplitAxis = Literal["out", "in"]
"""Of a weight [out_features, in_features]: ``out`` gives each device some of the results, ``in``
some of the terms of every result, which ``Ops.linear`` then sums over the group."""


@dataclass(frozen=True)
class Part:
    """Features in a row, made of ``num_units`` equal units that stay whole: heads, or features.

    Where there are fewer units than devices, several devices have the same one.
    """

    size: int
    num_units: int

    def shard_size(self, num_shards: int) -> int:
        """Features of one shard; ValueError where units would have to be cut."""
        few, many = sorted((self.num_units, num_shards))
        if self.size % self.num_units or many % few:
            raise ValueError(f"{self} cannot be divided among {num_shards} devices.")
        return self.size // min(self.num_units, num_shards)

    def shard(self, rank: int, num_shards: int) -> slice:
        """The features of one shard."""
        size = self.shard_size(num_shards)
        first = rank * min(self.num_units, num_shards) // num_shards
        return slice(first * size, (first + 1) * size)


@dataclass(frozen=True)
class Split:
    """An axis of a weight and the parts side by side on it, each of which is divided by itself."""

    axis: SplitAxis
    parts: tuple[Part, ...]

    def shard_size(self, num_shards: int) -> int:
        """Features of one shard, all parts together."""
        return sum(part.shard_size(num_shards) for part in self.parts)

    def order(self, num_shards: int) -> list[slice]:
        """The axis rearranged so that its equal divisions are the shards; runs are joined."""
        slices: list[slice] = []
        for rank in range(num_shards):
            start = 0
            for part in self.parts:
                piece = part.shard(rank, num_shards)
                begin, end = start + piece.start, start + piece.stop
                if slices and slices[-1].stop == begin:
                    begin = slices.pop().start
                slices.append(slice(begin, end))
                start += part.size
        return slices

    def within(self, start: int, size: int) -> Split:
        """The same of a stretch of the axis that begins and ends where parts do."""
        kept, position = [], 0
        for part in self.parts:
            if start <= position < start + size:
                kept.append(part)
            position += part.size
        return Split(self.axis, tuple(kept))
