"""Attention metadata of one KV group for one step: arrays on the device, and counts on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from octavo.api import step_tree

if TYPE_CHECKING:
    from octavo.api import GroupBatch, StepBatch

__all__ = ["TorchPlan", "make_plan", "make_plans"]


@step_tree(
    static=(
        "num_seqs",
        "max_query_len",
        "max_seq_len",
        "host_query_start",
        "host_seq_lens",
        "block_size",
    )
)
@dataclass(frozen=True)
class TorchPlan:
    """As ``octavo.api.AttentionPlan``, all arrays int32, and what sizes a launch.

    Whoever replays a recorded step leaves the host's numbers alone, or sets them to bounds: they
    choose grids and shapes only, what is computed comes from the arrays.
    """

    block_table: torch.Tensor  # [seqs, blocks]
    slots: torch.Tensor  # [tokens]: block * block_size + offset; 0 for padding
    query_start: torch.Tensor  # [seqs + 1]
    seq_lens: torch.Tensor  # [seqs]; 0 for padding
    token_seqs: torch.Tensor  # [tokens]
    positions: torch.Tensor  # [tokens]
    num_seqs: int
    """Rows of ``block_table``, padding among them."""
    max_query_len: int
    """Most tokens that one sequence has in this step; 1 for a step of decodes alone."""
    max_seq_len: int
    """Length of the longest sequence after this step."""
    host_query_start: tuple[int, ...] = ()
    """``query_start``, for attention that loops over sequences; no kernel needs it."""
    host_seq_lens: tuple[int, ...] = ()
    block_size: int = 16

    @property
    def is_bound(self) -> bool:
        """Whether the host's numbers are bounds, for a step of decodes that is recorded."""
        return not self.host_seq_lens and self.num_seqs > 0


def make_plan(
    batch: StepBatch, group: GroupBatch, block_size: int, put: Callable[[Any], torch.Tensor]
) -> TorchPlan:
    """The plan of ``group``, one of ``batch.groups``; all arrays are the host's, ``put`` moves."""
    starts = np.asarray(batch.query_start).tolist()
    lengths = np.asarray(batch.seq_lens).tolist()
    query_lens = [end - start for start, end in pairwise(starts)]
    return TorchPlan(
        block_table=put(group.block_table),
        slots=put(group.slots),
        query_start=put(batch.query_start),
        seq_lens=put(batch.seq_lens),
        token_seqs=put(batch.token_seqs),
        positions=put(batch.positions),
        num_seqs=len(lengths),
        max_query_len=max(query_lens, default=0),
        max_seq_len=max(lengths, default=0),
        host_query_start=tuple(starts),
        host_seq_lens=tuple(lengths),
        block_size=block_size,
    )


def make_plans(
    batch: StepBatch, block_size: int, put: Callable[[Any], torch.Tensor]
) -> tuple[TorchPlan, ...]:
    """One plan for each group; what groups have in common is put once."""
    placed: dict[int, torch.Tensor] = {}

    def put_once(array: Any) -> torch.Tensor:
        if id(array) not in placed:
            placed[id(array)] = put(array)
        return placed[id(array)]

    return tuple(make_plan(batch, group, block_size, put_once) for group in batch.groups)
