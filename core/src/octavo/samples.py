"""A step's sampled tokens on the host, read row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from octavo.ops.protocol import SampleResult

if TYPE_CHECKING:
    from octavo.ops.protocol import Array
    from octavo.transfers import Transfers

__all__ = ["LogprobRow", "ResultPart", "Samples", "begin_fetch"]

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


class ResultPart(NamedTuple):
    """A SampleResult on the device, whose first ``num_rows`` rows are wanted."""

    result: SampleResult
    num_rows: int

    @property
    def token_ids(self) -> Array:
        """Padding included."""
        return self.result.token_ids


def begin_fetch(
    transfers: Transfers,
    rows: Sequence[ResultPart],
    prompt_tokens: Sequence[ResultPart],
    *,
    with_logprobs: bool = True,
) -> Callable[[], tuple[Samples, Samples | None]]:
    """Begin to bring over what follows on each other in parts, and what there is of prompts.

    A backend may have computed log-probabilities that nobody asked for: those stay where they are.
    """
    if not with_logprobs:
        rows = [ResultPart(_without_logprobs(result), num_rows) for result, num_rows in rows]
    parts = [*rows, *prompt_tokens]
    columns = [[getattr(part.result, name) for name in _COLUMNS] for part in parts]
    pending = transfers.fetch([array for row in columns for array in row if array is not None])

    def wait() -> tuple[Samples, Samples | None]:
        hosts = iter(pending())
        found = [
            Samples(*[None if array is None else next(hosts) for array in row]).part(  # type: ignore[arg-type]
                slice(part.num_rows)
            )
            for row, part in zip(columns, parts, strict=True)
        ]
        prompts = found[len(rows) :]
        return _joined(found[: len(rows)]), _joined(prompts) if prompts else None

    return wait


def _without_logprobs(result: SampleResult) -> SampleResult:
    return SampleResult(result.token_ids, None, None, None, None, result.valid)


def _joined(parts: Sequence[Samples]) -> Samples:
    if len(parts) == 1:
        return parts[0]
    columns = [[getattr(part, name) for part in parts] for name in _COLUMNS]
    return Samples(
        *[None if column[0] is None else np.concatenate(column) for column in columns]  # type: ignore[arg-type]
    )
