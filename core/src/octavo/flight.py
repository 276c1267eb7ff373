"""A step under way: launched on the device, its results not read yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from octavo.completion import Completion
    from octavo.ops.protocol import Array, SamplingBatch
    from octavo.prompt_spans import PromptSpan
    from octavo.samples import Samples
    from octavo.scheduler import Schedule

__all__ = ["Flight"]

Int32 = NDArray[np.int32]


@dataclass(eq=False)
class Flight:
    """What has to be known to read the results, and to launch another step behind it."""

    schedule: Schedule
    completions: list[Completion]
    """One for each sampled row. It stands n times in a row with n answers to come."""
    rows: Int32
    """The row of each completion when the step was launched."""
    sampling: SamplingBatch
    spans: Sequence[PromptSpan]
    token_ids: Array
    """On the device; padding may follow."""
    fetch: Callable[[], tuple[Samples, Samples | None]]
    """Waits for the results, and those of prompts."""
    needs_host: bool
    """What is sampled next depends on these tokens in a way that only the host works out."""
    started_s: float
    num_tokens: int
    num_seqs: int
    is_committed: bool = False
    """The scheduler counts its tokens as computed."""
    dropped: set[Completion] = field(default_factory=set)
    """Ended or started over by the step before: what was sampled for them is good for nothing."""

    def drop_ended(self) -> None:
        """Drop everybody who has no row any more."""
        self.dropped.update(completion for completion in self.completions if completion.row < 0)

    @property
    def awaited(self) -> list[int]:
        """Indices of the rows whose tokens will be appended."""
        return [
            index
            for index, completion in enumerate(self.completions)
            if completion not in self.dropped and not completion.is_finished
        ]
