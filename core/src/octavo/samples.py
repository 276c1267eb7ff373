"""A step's sampled tokens on the host, read row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from octavo.ops.protocol import SampleResult

__all__ = ["LogprobRow", "Samples"]

LogprobRow = tuple[float, int, list[int], list[float]]
"""(log-probability, rank, likeliest ids, their log-probabilities)"""


@dataclass(frozen=True)
class Samples:
    """A SampleResult in host memory."""

    token_ids: NDArray[np.int32]  # [rows]
    logprobs: NDArray[np.float32] | None  # [rows]
    ranks: NDArray[np.int32] | None  # [rows]
    top_ids: NDArray[np.int32] | None  # [rows, k]
    top_logprobs: NDArray[np.float32] | None  # [rows, k]
    valid: NDArray[np.bool_] | None  # [rows]

    @classmethod
    def fetch(
        cls, result: SampleResult, get: Callable[[Any], NDArray[Any]], rows: slice
    ) -> Samples:
        """Those rows of a result, brought over by ``Backend.get``."""

        def host(array: Any) -> Any:
            return None if array is None else get(array)[rows]

        return cls(
            token_ids=host(result.token_ids),
            logprobs=host(result.logprobs),
            ranks=host(result.ranks),
            top_ids=host(result.top_ids),
            top_logprobs=host(result.top_logprobs),
            valid=host(result.valid),
        )

    def part(self, rows: slice) -> Samples:
        """Some of the rows."""

        def cut(array: Any) -> Any:
            return None if array is None else array[rows]

        return Samples(
            self.token_ids[rows],
            cut(self.logprobs),
            cut(self.ranks),
            cut(self.top_ids),
            cut(self.top_logprobs),
            cut(self.valid),
        )

    @property
    def has_logprobs(self) -> bool:
        """Whether log-probabilities came with the tokens."""
        return self.logprobs is not None

    @property
    def unusable_rows(self) -> frozenset[int]:
        """Rows without a token: their logits held NaN, or nothing was allowed."""
        if self.valid is None or self.valid.all():
            return frozenset()
        return frozenset(np.flatnonzero(~self.valid).tolist())

    def logprob_row(self, index: int) -> LogprobRow:
        """The log-probabilities of one row; only where ``has_logprobs``."""
        logprobs, ranks, top_ids, top_logprobs = self._logprob_lists
        return logprobs[index], ranks[index], top_ids[index], top_logprobs[index]

    @cached_property
    def _logprob_lists(self) -> tuple[list[float], list[int], list[list[int]], list[list[float]]]:
        columns = (self.logprobs, self.ranks, self.top_ids, self.top_logprobs)
        logprobs, ranks, top_ids, top = (
            [] if column is None else column.tolist() for column in columns
        )
        return logprobs, ranks, top_ids, top
