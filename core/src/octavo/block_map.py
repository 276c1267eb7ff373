"""What each block of a KV group holds, as runs of neighbours that are alike."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from octavo.blocks import BlockPool

__all__ = ["BLOCK_STATES", "BlockRun", "BlockRuns", "map_blocks"]

BlockState: TypeAlias = Literal["unused", "cached", "used"]
BLOCK_STATES: tuple[BlockState, ...] = ("unused", "cached", "used")
Ids: TypeAlias = NDArray[np.int32]


class BlockRun(NamedTuple):
    """Neighbouring blocks of the same state, owner and number of holders."""

    state: BlockState
    owner: int
    """Index in ``EngineSnapshot.requests`` of the first that holds them; -1: nobody."""
    num_holders: int
    """More than one: a shared prefix."""
    num_blocks: int


class BlockRuns(Sequence[BlockRun]):
    """Runs of blocks, kept as four columns: requests that grow together make a run per block."""

    def __init__(
        self, states: NDArray[np.uint8], owners: Ids, num_holders: Ids, num_blocks: Ids
    ) -> None:
        """Columns of equal length; ``states`` are places in BLOCK_STATES."""
        self.states = states
        self.owners = owners
        self.num_holders = num_holders
        self.num_blocks = num_blocks

    def __len__(self) -> int:
        return len(self.states)

    @overload
    def __getitem__(self, index: int) -> BlockRun: ...
    @overload
    def __getitem__(self, index: slice) -> BlockRuns: ...
    def __getitem__(self, index: int | slice) -> BlockRun | BlockRuns:
        """One run, or some of them."""
        if isinstance(index, slice):
            return BlockRuns(
                self.states[index],
                self.owners[index],
                self.num_holders[index],
                self.num_blocks[index],
            )
        return BlockRun(
            BLOCK_STATES[self.states[index]],
            int(self.owners[index]),
            int(self.num_holders[index]),
            int(self.num_blocks[index]),
        )

    def __iter__(self) -> Iterator[BlockRun]:
        columns = (self.owners, self.num_holders, self.num_blocks)
        states = (BLOCK_STATES[state] for state in self.states.tolist())
        return map(BlockRun, states, *(column.tolist() for column in columns))


def map_blocks(pool: BlockPool, tables: Sequence[Collection[int]]) -> BlockRuns:
    """The blocks of a pool in order, block 0 left out; ``tables`` are its requests' block tables.

    A block that only a copy of the next step still reads is used and has no owner.
    """
    owners = np.full(pool.num_blocks, -1, np.int32)
    blocks = np.fromiter(chain.from_iterable(tables), np.int32)
    holder = np.repeat(np.arange(len(tables), dtype=np.int32), [len(table) for table in tables])
    owners[blocks[::-1]] = holder[::-1]  # the first holder is written last
    num_holders = np.bincount(blocks, minlength=pool.num_blocks).astype(np.int32)
    return _runs(_states(pool)[1:], owners[1:], num_holders[1:])


def _states(pool: BlockPool) -> NDArray[np.uint8]:
    """Of every block its place in BLOCK_STATES."""
    references = np.fromiter(pool.reference_counts, np.int32, pool.num_blocks)
    states = np.where(references > 0, np.uint8(2), np.uint8(0))
    states[np.fromiter(pool.cached_blocks, np.int32, pool.num_cached)] = 1
    return states


def _runs(states: NDArray[np.uint8], owners: Ids, num_holders: Ids) -> BlockRuns:
    differs = np.ones(len(states), np.bool_)
    differs[1:] = (
        (states[1:] != states[:-1])
        | (owners[1:] != owners[:-1])
        | (num_holders[1:] != num_holders[:-1])
    )
    starts = np.flatnonzero(differs)
    lengths = np.diff(starts, append=len(states)).astype(np.int32)
    return BlockRuns(states[starts], owners[starts], num_holders[starts], lengths)
