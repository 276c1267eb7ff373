"""Computes the masks of a step in a thread, beside the forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from octavo.token_mask import allowed_tokens

if TYPE_CHECKING:
    from octavo.token_mask import TokenMask

__all__ = ["MaskWorker", "PendingMasks"]


class PendingMasks:
    """Masks that are being computed.

    ``wait`` must be called, whatever becomes of the step: until then they are the worker's.
    """

    def __init__(self, future: Future[NDArray[np.bool_] | None]) -> None:
        self._future = future

    def wait(self) -> None:
        """Return once they are there, or have failed."""
        self._future.exception()

    def result(self) -> NDArray[np.bool_] | None:
        """As ``allowed_tokens`` has them; raises what a mask has raised."""
        return self._future.result()


class MaskWorker:
    """One thread, begun with the first step that has a mask."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._thread: ThreadPoolExecutor | None = None

    def begin(self, masks: Sequence[TokenMask | None]) -> PendingMasks | None:
        """Compute the masks of a step's rows from now on; None where no row has one."""
        if not any(mask is not None for mask in masks):
            return None
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="octavo-masks")
        return PendingMasks(self._thread.submit(allowed_tokens, masks, self._vocab_size))

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None
