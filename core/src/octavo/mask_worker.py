"""Computes the masks of a step in a thread, beside the forward pass."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from octavo.token_mask import allowed_tokens

if TYPE_CHECKING:
    from octavo.token_mask import TokenMask

__all__ = ["MaskWorker", "PendingMasks"]

_Job: TypeAlias = "tuple[Future[NDArray[np.bool_] | None], Callable[[], NDArray[np.bool_] | None]]"


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
    """One thread, begun with the first step that has a mask.

    Python does not wait for it at its end: a mask may hang.
    """

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._jobs: queue.SimpleQueue[_Job | None] | None = None

    def begin(self, masks: Sequence[TokenMask | None]) -> PendingMasks | None:
        """Compute the masks of a step's rows from now on; None where no row has one."""
        if not any(mask is not None for mask in masks):
            return None
        if self._jobs is None:
            self._jobs = queue.SimpleQueue()
            name, jobs = "octavo-masks", self._jobs
            threading.Thread(target=_work, args=(jobs,), name=name, daemon=True).start()
        future: Future[NDArray[np.bool_] | None] = Future()
        self._jobs.put((future, lambda: allowed_tokens(masks, self._vocab_size)))
        return PendingMasks(future)

    def close(self) -> None:
        """End the thread, once it is done with what it was given."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None


def _work(jobs: queue.SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        future, compute = job
        try:
            future.set_result(compute())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            future.set_exception(error)
        del job, future, compute  # what they hold must not live until the next step
