"""A step's sampled tokens on the host, read row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo.ops.protocol import SampleResult

if TYPE_CHECKING:
    from octavo.transfers import Transfers

__all__ = ["LogprobRow", "Samples", "begin_fetch"]

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

    def part(self, rows: slice | NDArray[np.intp]) -> Samples:
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


_COLUMNS = ("token_ids", "logprobs", "ranks", "top_ids", "top_logprobs", "valid")


def begin_fetch(
    transfers: Transfers,
    result: SampleResult,
    prompt_result: SampleResult | None,
    num_rows: int,
    *,
    with_logprobs: bool = True,
) -> Callable[[], tuple[Samples, Samples | None]]:
    """Begin to bring over ``num_rows`` rows of a result, and what there is of the prompts'.

    A backend may have computed log-probabilities that nobody asked for: those stay where they are.
    """
    if not with_logprobs:
        result = SampleResult(result.token_ids, None, None, None, None, result.valid)
    results = [each for each in (result, prompt_result) if each is not None]
    columns = [[getattr(each, name) for name in _COLUMNS] for each in results]
    pending = transfers.fetch([array for row in columns for array in row if array is not None])

    def wait() -> tuple[Samples, Samples | None]:
        hosts = iter(pending())
        whole = [
            Samples(*[None if array is None else next(hosts) for array in row])  # type: ignore[arg-type]
            for row in columns
        ]
        return whole[0].part(slice(num_rows)), whole[1] if len(whole) > 1 else None

    return wait
