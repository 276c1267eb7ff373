"""How many threads to use, and a pool that shares work without waiting for a late thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import threadpoolctl

from octavo_cpu.cores import num_usable_cores

__all__ = ["Workers", "blas_threads"]

Task = TypeVar("Task")


def blas_threads() -> int:
    """Threads the BLAS library was told to use, by the user or by its own count of cores."""
    counts = [
        int(library["num_threads"])
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    ]
    return max(counts) if counts else num_usable_cores()


class Workers:
    """``count`` threads, the calling one included; NumPy lets go of the interpreter lock.

    Threads take the next task when they are done with one, and a thread that has not begun is not
    waited for: with a busy neighbour on one core the others carry on. BLAS's own threads wait for
    each other at every product instead, and lose all their speed when one of them is descheduled.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count - 1, "octavo-cpu") if count > 1 else None

    def run(self, function: Callable[[Task], object], tasks: Iterable[Task]) -> None:
        """Call ``function`` on each task, in any order; wait for all. Raises what a task raises."""
        pending = deque(tasks)
        if self._pool is None or len(pending) < 2:
            for task in pending:
                function(task)
            return

        def work() -> None:
            while True:
                try:
                    task = pending.popleft()
                except IndexError:
                    return
                function(task)

        num_helpers = min(self.count, len(pending)) - 1
        helpers = [self._pool.submit(work) for _ in range(num_helpers)]
        try:
            work()
        finally:  # also after an error: nobody may still write when the step is over
            pending.clear()
            _finish(helpers)
        for helper in helpers:
            if not helper.cancelled():
                helper.result()

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def _finish(helpers: list[Future[None]]) -> None:
    """Wait for those that have begun; the others have nothing left to do."""
    wait([helper for helper in helpers if not helper.cancel()])
