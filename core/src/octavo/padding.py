"""Pads a step to the shapes a backend has compiled for; what is padded reads and writes block 0."""

from __future__ import annotations

import dataclasses
import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo.batch import GroupBatch, StepBatch
from octavo.late_sampling import LateSampling

if TYPE_CHECKING:
    from octavo.backend import Capabilities
    from octavo.ops.protocol import Array, SamplingBatch

__all__ = ["SPARSE_SIZES", "Buckets"]

Int32 = NDArray[np.int32]
_SPARSE = ("seen_rows", "seen_ids", "seen_counts", "bias_rows", "bias_ids", "bias_values")
SPARSE_SIZES = (4096, 65536)
"""Numbers of adjusted logits that a step is padded to where each shape is a program."""


@dataclass(frozen=True)
class Buckets:
    """The shapes a backend wants. Without buckets shapes are exact and nothing is padded."""

    tokens: tuple[int, ...]
    seqs: tuple[int, ...]
    decodes: tuple[int, ...] = ()
    has_spare_row: bool = False
    """There is a row more than the bucket has, which the padding of adjustments belongs to."""

    most_rows: int = sys.maxsize
    """Rows beyond are sampled by themselves: so that no shape comes about that nobody foresaw."""

    @classmethod
    def of(cls, caps: Capabilities, max_num_seqs: int | None = None) -> Buckets:
        """As the backend declares them.

        With ``max_num_seqs`` no more rows are sampled at once than so many are padded to.
        """
        kinds = (caps.token_buckets, caps.seq_buckets, caps.decode_buckets)
        tokens, seqs, decodes = (tuple(sorted(sizes)) for sizes in kinds)
        buckets = cls(tokens, seqs, decodes)
        if max_num_seqs is None:
            return buckets
        return dataclasses.replace(buckets, most_rows=_bucket(max_num_seqs, seqs))

    def of_step(
        self, num_tokens: int, num_seqs: int, sampling: SamplingBatch | LateSampling
    ) -> Buckets:
        """Those of one step: where all its sequences have one token, one size for everything."""
        if num_tokens == num_seqs and self.decodes:
            needed = max(num_seqs, _count_rows(sampling, may_adjust=True))
            index = bisect_left(self.decodes, needed)
            if index < len(self.decodes):
                size = (self.decodes[index],)
                return Buckets(size, size)
        # As many rows as sequences, so that one shape has one program.
        num_rows = min(_count_rows(sampling, may_adjust=False), self.most_rows)
        needed = max(num_seqs, num_rows)
        fitting = tuple(size for size in self.seqs if size >= needed)
        if self.seqs and not fitting:
            fitting = (_bucket(needed, self.seqs),)
        has_spare_row = bool(self.tokens)
        return dataclasses.replace(self, seqs=fitting, has_spare_row=has_spare_row)

    @property
    def exact(self) -> bool:
        """Whether nothing is ever padded."""
        return not (self.tokens or self.seqs)

    def num_rows(self, sampling: SamplingBatch | LateSampling) -> int:
        """Rows to sample, padding included.

        Where single logits are adjusted, as they are by masks that come later, there is a row to
        spare, for the padding of adjustments.
        """
        if self.has_spare_row:
            return _bucket(_count_rows(sampling, may_adjust=False), self.seqs) + 1
        return _bucket(_count_rows(sampling, may_adjust=not self.exact), self.seqs)

    def pad_rows(self, rows: Int32, num_rows: int | None = None) -> Int32:
        """Indices of flattened tokens, padded with token 0 to ``num_rows`` or to a bucket."""
        return _pad(rows, _bucket(len(rows), self.seqs) if num_rows is None else num_rows)

    def pad_batch(self, batch: StepBatch) -> StepBatch:
        """Tokens and sequences up to their buckets; table widths up to a power of two."""
        if self.exact:
            return batch
        num_tokens = _bucket(len(batch.token_ids), self.tokens)
        num_seqs = _bucket(len(batch.seq_lens), self.seqs)
        return StepBatch(
            token_ids=_pad(batch.token_ids, num_tokens),
            positions=_pad(batch.positions, num_tokens),
            token_seqs=_pad(batch.token_seqs, num_tokens),
            # A padding sequence is empty: it starts and ends after the last real token.
            query_start=_pad(batch.query_start, num_seqs + 1, int(batch.query_start[-1])),
            seq_lens=_pad(batch.seq_lens, num_seqs),
            context_lens=_pad(batch.context_lens, num_tokens, 1),
            logits_rows=batch.logits_rows,
            groups=tuple(
                GroupBatch(_pad_table(group.block_table, num_seqs), _pad(group.slots, num_tokens))
                for group in batch.groups
            ),
        )

    def pad_sampling(self, sampling: SamplingBatch) -> SamplingBatch:
        """Greedy padding rows; sparse adjustments padded with some that change nothing."""
        if self.exact:
            return sampling
        num_rows, spare_row = self.num_rows(sampling), len(sampling.temperature)
        neutral = {
            "top_p": 1.0,
            "repetition_penalty": 1.0,
            "seen_rows": spare_row,
            "bias_rows": spare_row,
        }
        adjusted = max(len(sampling.seen_ids), len(sampling.bias_ids))
        common_size = _bucket(adjusted, SPARSE_SIZES) if self.has_spare_row else 0
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(sampling):
            value = getattr(sampling, field.name)
            if not isinstance(value, np.ndarray):
                continue
            size = num_rows
            if field.name in _SPARSE:
                is_common = self.has_spare_row and not sampling.plain
                size = common_size if is_common else _power_of_two(len(value))
            if field.name == "mask":
                changes["mask"] = np.pad(
                    value, ((0, size - len(value)), (0, 0)), constant_values=True
                )
            else:
                changes[field.name] = _pad(value, size, neutral.get(field.name, 0))
        return dataclasses.replace(sampling, **changes)


def _count_rows(sampling: SamplingBatch | LateSampling, *, may_adjust: bool) -> int:
    if isinstance(sampling, LateSampling):
        num_rows, plain = sampling.num_rows, False
    else:
        num_rows, plain = len(sampling.temperature), sampling.plain
    return num_rows + int(may_adjust and not plain)


def _bucket(size: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds ``size``; past the last, whole multiples of it."""
    if not buckets:
        return size
    index = bisect_left(buckets, size)
    return buckets[index] if index < len(buckets) else -(-size // buckets[-1]) * buckets[-1]


def _power_of_two(size: int) -> int:
    return 1 << max(size - 1, 0).bit_length() if size else 0


def _pad(array: Array, size: int, value: float = 0) -> NDArray[Any]:
    host = np.asarray(array)
    if size == len(host):
        return host
    padded = np.full(size, value, host.dtype)
    padded[: len(host)] = host
    return padded


def _pad_table(table: Array, num_seqs: int) -> Int32:
    table = np.asarray(table)
    padded = np.zeros((num_seqs, _power_of_two(table.shape[1])), np.int32)
    padded[: table.shape[0], : table.shape[1]] = table
    return padded
