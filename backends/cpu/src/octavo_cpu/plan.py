"""Attention metadata of one step: which keys each sequence reads, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from octavo.api import GroupBatch, StepBatch

__all__ = ["KeyRange", "NumpyPlan", "make_plan"]


@dataclass(frozen=True)
class KeyRange:
    """The keys that one sequence reads, in the order of their positions.

    ::

        blocks      | b0        | b1        | b2        |
        slots         . . . k k   k k k k k   k k . . .
                    ->offset<-    num_keys
    """

    first_token: int
    num_tokens: int
    first_query: int  # index among the keys of the first token's own key
    blocks: NDArray[np.intp]
    offset: int  # keys of the first block that lie behind the window
    num_keys: int
    slots: slice | None  # where the keys lie, if the blocks follow each other in the cache

    @property
    def is_decode(self) -> bool:
        """Whether there is one query, the usual case."""
        return self.num_tokens == 1


@dataclass(frozen=True)
class NumpyPlan:
    """One KV group's part of a step; ``tasks`` keeps what the group's first layer worked out."""

    slots: NDArray[np.intp]
    starts: list[int]  # first token of each sequence, and the end of the last
    seq_lens: list[int]
    block_table: NDArray[np.intp]
    block_size: int
    tasks: dict[Any, Any] = field(default_factory=dict)

    def key_ranges(self, window: int | None) -> list[KeyRange]:
        """One for each sequence that has tokens in this step."""
        return [
            self._key_range(seq, window)
            for seq, seq_len in enumerate(self.seq_lens)
            if seq_len > 0 and self.starts[seq + 1] > self.starts[seq]
        ]

    def _key_range(self, seq: int, window: int | None) -> KeyRange:
        first_token = self.starts[seq]
        num_tokens = self.starts[seq + 1] - first_token
        seq_len = self.seq_lens[seq]
        first_position = seq_len - num_tokens
        first_key = 0 if window is None else max(0, first_position - window + 1)
        first_block = first_key // self.block_size
        blocks = self.block_table[seq, first_block : -(-seq_len // self.block_size)]
        offset = first_key - first_block * self.block_size
        is_run = len(blocks) == 1 or bool((np.diff(blocks) == 1).all())
        num_keys = seq_len - first_key
        first_slot = int(blocks[0]) * self.block_size + offset
        return KeyRange(
            first_token=first_token,
            num_tokens=num_tokens,
            first_query=first_position - first_key,
            blocks=blocks,
            offset=offset,
            num_keys=num_keys,
            slots=slice(first_slot, first_slot + num_keys) if is_run else None,
        )


def make_plan(batch: StepBatch, group: GroupBatch, block_size: int) -> NumpyPlan:
    """The plan of one KV group of a host batch."""
    return NumpyPlan(
        slots=np.asarray(group.slots, np.intp),
        starts=np.asarray(batch.query_start).tolist(),
        seq_lens=np.asarray(batch.seq_lens).tolist(),
        block_table=np.asarray(group.block_table, np.intp),
        block_size=block_size,
    )
