"""What a step is to sample, as far as it is known before its masks are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octavo.mask_worker import PendingMasks
    from octavo.ops.protocol import SamplingBatch

__all__ = ["LateSampling"]


@dataclass(frozen=True)
class LateSampling:
    """``masks.wait`` must be called, whatever becomes of the step."""

    num_rows: int
    masks: PendingMasks
    build: Callable[..., SamplingBatch]

    def result(self) -> SamplingBatch:
        """All of it; raises what a mask has raised."""
        return self.build(mask=self.masks.result())
