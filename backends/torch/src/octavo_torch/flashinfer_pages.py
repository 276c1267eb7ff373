"""Sequences and their pages as FlashInfer's wrappers want them, by the host's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from octavo_torch.plan import TorchPlan

__all__ = ["Pages", "Part", "find_pages", "parts_of"]


@dataclass(frozen=True)
class Part:
    """Sequences of a step that one wrapper serves: ``first_seq`` up to ``end_seq``."""

    first_seq: int
    end_seq: int
    tokens: slice
    is_decode: bool
    """Each has one token."""


def parts_of(plan: TorchPlan) -> Iterator[Part]:
    """The leading sequences of one token, then the others; padding behind them is left out."""
    starts = plan.host_query_start
    end = len(plan.host_seq_lens)
    while end and starts[end] == starts[end - 1]:
        end -= 1
    num_decodes = 0
    while num_decodes < end and starts[num_decodes + 1] == num_decodes + 1:
        num_decodes += 1
    if num_decodes:
        yield Part(0, num_decodes, slice(0, num_decodes), is_decode=True)
    if num_decodes < end:
        yield Part(num_decodes, end, slice(starts[num_decodes], starts[end]), is_decode=False)


@dataclass(frozen=True)
class Pages:
    """Tensors of int32: ``indices`` on the device, the others on the host, where they are read."""

    query_start: torch.Tensor  # [seqs + 1]
    indptr: torch.Tensor  # [seqs + 1]: which of indices are a sequence's
    indices: torch.Tensor  # [indptr[-1]]: blocks of the cache
    last_page_len: torch.Tensor  # [seqs]


def find_pages(plan: TorchPlan, part: Part, block_size: int) -> Pages:
    """The blocks that ``part`` reads; a sequence without length, which is padding's, block 0."""
    starts = np.array(plan.host_query_start[part.first_seq : part.end_seq + 1], np.int32)
    lengths = np.array(plan.host_seq_lens[part.first_seq : part.end_seq], np.int32).clip(1)
    num_pages = -(-lengths // block_size)
    indptr = np.concatenate([[0], num_pages.cumsum()]).astype(np.int32)
    rows = np.arange(part.first_seq, part.end_seq, dtype=np.int32).repeat(num_pages)
    columns = np.arange(indptr[-1], dtype=np.int32) - indptr[:-1].repeat(num_pages)
    table = plan.block_table
    places = torch.from_numpy(rows * np.int32(table.shape[1]) + columns).to(table.device)
    return Pages(
        query_start=torch.from_numpy(starts - starts[0]),
        indptr=torch.from_numpy(indptr),
        indices=table.reshape(-1).index_select(0, places),
        last_page_len=torch.from_numpy((lengths - 1) % block_size + 1),
    )
