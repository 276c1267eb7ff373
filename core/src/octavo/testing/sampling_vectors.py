"""Rows of logits and settings with the tokens they must give, as arrays that ops take.

The file is made by scripts/make_sampling_vectors.py, and a test computes it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.ops.protocol import SamplingBatch
from octavo.testing.vectors import read_vectors

__all__ = ["SamplingVector", "sampling_vectors", "token_logprob_vectors"]

Row = Mapping[str, Any]
_DEFAULTS: Mapping[str, float] = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
_UNIFORM_PARTS = float(1 << 24)
_SMALLEST_VOCAB = 24


@dataclass(frozen=True)
class SamplingVector:
    """One batch of rows over one vocabulary."""

    label: str
    num_logprobs: int  # -1 = none at all
    rows: Sequence[Row]

    @property
    def expected(self) -> list[Row]:
        """What each row must give: token_id, and log-probabilities if asked for; or not valid."""
        return [row["expected"] for row in self.rows]

    @property
    def token_ids(self) -> NDArray[np.int32]:
        """The given tokens of each row: [rows]."""
        return np.array([row["token_id"] for row in self.rows], np.int32)

    @property
    def logits(self) -> NDArray[np.float32]:
        """[rows, vocab]; rows over fewer tokens are filled up with impossible ones."""
        rows = [_logits(row) for row in self.rows]
        vocab_size = max(_SMALLEST_VOCAB, *map(len, rows))
        return np.array([row + [-np.inf] * (vocab_size - len(row)) for row in rows], np.float32)

    @property
    def batch(self) -> SamplingBatch:
        """How each row is to be sampled, on the host."""
        columns = {
            name: np.array(
                [row.get(name, default) for row in self.rows],
                np.int32 if name == "top_k" else np.float32,
            )
            for name, default in _DEFAULTS.items()
        }
        uniform = np.array([row.get("uniform", 0) for row in self.rows]) / _UNIFORM_PARTS
        seen_rows, seen_ids, seen_counts = _sparse(self.rows, "seen", np.int32)
        bias_rows, bias_ids, bias_values = _sparse(self.rows, "bias", np.float32)
        mask = self._mask()
        return SamplingBatch(
            **columns,
            uniform=uniform.astype(np.float32),
            seen_rows=seen_rows,
            seen_ids=seen_ids,
            seen_counts=seen_counts,
            bias_rows=bias_rows,
            bias_ids=bias_ids,
            bias_values=bias_values,
            mask=mask,
            num_logprobs=self.num_logprobs,
            all_greedy=not columns["temperature"].any(),
            plain=mask is None and not len(seen_ids) and not len(bias_ids),
            truncated=bool(columns["top_k"].any() or (columns["top_p"] < 1).any()),
        )

    def _mask(self) -> NDArray[np.bool_] | None:
        if not any("allowed" in row for row in self.rows):
            return None
        mask = np.ones(self.logits.shape, np.bool_)
        for allowed, row in zip(mask, self.rows, strict=True):
            if "allowed" in row:
                allowed[:] = False
                allowed[row["allowed"]] = True
        return mask


def sampling_vectors() -> list[SamplingVector]:
    """For ``ops.sample``."""
    return [_filled(SamplingVector(**case)) for case in read_vectors("sampling")["sample"]]


def token_logprob_vectors() -> list[SamplingVector]:
    """For ``ops.token_logprobs``."""
    return [_filled(SamplingVector(**case)) for case in read_vectors("sampling")["token_logprobs"]]


def _filled(vector: SamplingVector) -> SamplingVector:
    """Its rows, begun again until they are a power of two: few shapes mean few compilations.

    Those over a large vocabulary stay as they are, an odd number.
    """
    num_rows = len(vector.rows)
    if "hash" in vector.rows[0]:
        return vector
    rows = [vector.rows[i % num_rows] for i in range(1 << (num_rows - 1).bit_length())]
    return replace(vector, rows=rows)


def _logits(row: Row) -> list[float]:
    if "hash" not in row:
        return [float(logit) for logit in row["logits"]]
    multiplier, offset, vocab_size = row["hash"]
    return [((multiplier * i + offset) % 8191 - 4095) / 512 for i in range(vocab_size)]


def _sparse(rows: Sequence[Row], name: str, dtype: type) -> tuple[NDArray[Any], ...]:
    entries = [
        (index, token_id, float(value))
        for index, row in enumerate(rows)
        for token_id, value in row.get(name, ())
    ]
    columns = list(zip(*entries, strict=True)) or [(), (), ()]
    dtypes = (np.int32, np.int32, dtype)
    return tuple(np.array(column, of) for column, of in zip(columns, dtypes, strict=True))
