"""One step's input as arrays: what the scheduler decided, in the form a model reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octavo.step_trees import step_tree

if TYPE_CHECKING:
    from jaxtyping import Int

    from octavo.ops.protocol import Array

__all__ = ["GroupBatch", "StepBatch"]


@step_tree
@dataclass(frozen=True)
class GroupBatch:
    """Where one KV group reads and writes in this step."""

    block_table: Int[Array, "seqs blocks"]  # unused entries are 0
    slots: Int[Array, "tokens"]  # block * block_size + offset; 0 for padding

    def map(self, put: Callable[[Any], Any]) -> GroupBatch:
        """The same batch with ``put`` applied to each array."""
        return GroupBatch(put(self.block_table), put(self.slots))


@step_tree
@dataclass(frozen=True)
class StepBatch:
    """A mixed batch of prefill chunks and decodes, flattened over tokens. All arrays int32.

    NumPy on the host; ``map(backend.put)`` gives the copy that a model reads on the device.
    """

    token_ids: Int[Array, "tokens"]
    positions: Int[Array, "tokens"]  # position of each token in its sequence
    token_seqs: Int[Array, "tokens"]  # sequence of each token
    query_start: Int[Array, "seqs_plus_1"]  # sequence i owns tokens query_start[i]:query_start[i+1]
    seq_lens: Int[Array, "seqs"]  # length after this step; 0 for padding
    context_lens: Int[Array, "tokens"]  # max(position + 1, prompt length), for rope scaling
    logits_rows: Int[Array, "rows"]  # tokens whose logits are wanted; may repeat
    groups: tuple[GroupBatch, ...]

    def map(self, put: Callable[[Any], Any]) -> StepBatch:
        """The same batch with ``put`` applied to each array."""
        return StepBatch(
            token_ids=put(self.token_ids),
            positions=put(self.positions),
            token_seqs=put(self.token_seqs),
            query_start=put(self.query_start),
            seq_lens=put(self.seq_lens),
            context_lens=put(self.context_lens),
            logits_rows=put(self.logits_rows),
            groups=tuple(group.map(put) for group in self.groups),
        )
