"""How many threads to use, and a pool that shares work over sequences among them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import threadpoolctl

__all__ = ["Workers", "blas_threads"]

Task = TypeVar("Task")


def blas_threads() -> int:
    """Threads the BLAS library was told to use, by the user or by its own count of cores."""
    counts = [
        int(library["num_threads"])
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    ]
    return max(counts) if counts else _num_cores()


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """``count`` threads, the calling one included; NumPy lets go of the interpreter lock."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count - 1, "octavo-cpu") if count > 1 else None

    def run(self, function: Callable[[Task], None], tasks: Sequence[Task]) -> None:
        """Call ``function`` on each task, the first one on the calling thread; wait for all."""
        if self._pool is None or len(tasks) < 2:
            for task in tasks:
                function(task)
            return
        futures = [self._pool.submit(function, task) for task in tasks[1:]]
        try:
            function(tasks[0])
        finally:  # also after an error: nobody may still write when the step is over
            for future in futures:
                future.exception()
        for future in futures:
            future.result()

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()
