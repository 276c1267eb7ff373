"""Attention of sequences with one query: matrix-vector products, many sequences to a softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo_cpu.kernels.keys import KeyReader, is_view
from octavo_cpu.kernels.softmax import soft_cap, softmax
from octavo_cpu.plan import KeyRange

__all__ = ["DecodeTask", "HeadShape", "make_decode_tasks"]

Float32 = NDArray[np.float32]

_MAX_SCORES = 1 << 16  # of one softmax: 256 KiB, which stays in the core's cache


@dataclass(frozen=True)
class HeadShape:
    """The query heads of a KV head stand side by side: head = kv_head * group + i."""

    kv_heads: int
    group: int
    head_dim: int


@dataclass(frozen=True)
class _Sequence:
    """One sequence's keys, and its part of the scores, seen in both ways that are needed."""

    keys: KeyRange
    gathered: Float32 | None  # [kv_heads, 1, keys, head_dim] of the scratch space, or
    slots: slice | None  # where the keys lie in the cache, if they are a run
    scores: Float32  # [kv_heads, group, keys, 1]
    weights: Float32  # [kv_heads, group, 1, keys], the same memory


@dataclass(frozen=True)
class _Batch:
    """Sequences that share one softmax."""

    scores: Float32  # [seqs, kv_heads, group, longest]
    paddings: list[Float32]  # what lies behind the scores of sequences that are shorter
    sequences: list[_Sequence]


@dataclass(frozen=True)
class DecodeTask:
    """The sequences that one thread takes."""

    reader: KeyReader
    batches: list[_Batch]

    def run(
        self,
        q: Float32,  # [tokens, kv_heads, group, head_dim, 1], already scaled
        k: NDArray[Any],
        v: NDArray[Any],
        out: Float32,  # [tokens, kv_heads, group, 1, head_dim]
        cap: float | None,
        sinks: Float32 | None,  # [kv_heads, group, 1]
    ) -> None:
        """Fill the rows of ``out`` that belong to this task's sequences."""
        k_heads, v_heads = _by_head(k), _by_head(v)
        for batch in self.batches:
            for sequence in batch.sequences:
                keys = self._read(k, k_heads, sequence)
                np.matmul(keys, q[sequence.keys.first_token], out=sequence.scores)
            if cap is not None:
                soft_cap(batch.scores, cap)
            for padding in batch.paddings:
                padding.fill(-np.inf)
            softmax(batch.scores, sinks)
            for sequence in batch.sequences:
                values = self._read(v, v_heads, sequence)
                np.matmul(sequence.weights, values, out=out[sequence.keys.first_token])

    def _read(self, blocks: NDArray[Any], heads: Float32, sequence: _Sequence) -> Float32:
        """[kv_heads, 1, keys, head_dim]."""
        if sequence.gathered is not None:
            self.reader.gather(blocks, sequence.keys)
            return sequence.gathered
        return heads[:, :, sequence.slots]


def _by_head(blocks: NDArray[Any]) -> NDArray[Any]:
    """[num_blocks, block_size, kv_heads, head_dim] as [kv_heads, 1, num_slots, head_dim]."""
    return _heads_first(blocks.reshape(-1, *blocks.shape[2:]))


def _heads_first(keys: NDArray[Any]) -> NDArray[Any]:
    return keys.transpose(1, 0, 2)[:, None]


def make_decode_tasks(
    key_ranges: Sequence[KeyRange], heads: HeadShape, k: NDArray[Any], num_threads: int
) -> list[DecodeTask]:
    """Deal the sequences out to threads, longest first, so that each has about as many keys."""
    ordered = sorted(key_ranges, key=lambda keys: keys.num_keys, reverse=True)
    hands = [ordered[thread::num_threads] for thread in range(num_threads)]
    return [_make_task(hand, heads, k) for hand in hands if hand]


def _make_task(key_ranges: Sequence[KeyRange], heads: HeadShape, k: NDArray[Any]) -> DecodeTask:
    gathered = [keys for keys in key_ranges if not is_view(k, keys)]
    max_blocks = max((len(keys.blocks) for keys in gathered), default=0)
    reader = KeyReader(max_blocks, k.shape[1:], k.dtype)
    batches = []
    start = 0
    while start < len(key_ranges):
        longest = key_ranges[start].num_keys
        size = max(1, _MAX_SCORES // (heads.kv_heads * heads.group * longest))
        batches.append(_make_batch(key_ranges[start : start + size], heads, k, reader))
        start += size
    return DecodeTask(reader, batches)


def _make_batch(
    key_ranges: Sequence[KeyRange], heads: HeadShape, k: NDArray[Any], reader: KeyReader
) -> _Batch:
    longest = key_ranges[0].num_keys
    # Zeros: the soft-cap goes over paddings as well, before they are masked.
    scores = np.zeros((len(key_ranges), heads.kv_heads, heads.group, longest), np.float32)
    pairs = list(zip(key_ranges, scores, strict=True))
    return _Batch(
        scores=scores,
        paddings=[row[..., keys.num_keys :] for keys, row in pairs if keys.num_keys < longest],
        sequences=[
            _Sequence(
                keys=keys,
                gathered=None if is_view(k, keys) else _heads_first(reader.gathered(keys)),
                slots=keys.slots,
                scores=row[..., : keys.num_keys, None],
                weights=row[:, :, None, : keys.num_keys],
            )
            for keys, row in pairs
        ],
    )
