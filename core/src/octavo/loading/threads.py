"""Work on a weight shared among the processor's threads, where NumPy lets go of the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["share"]


def share(work: Callable[[int], Any], items: Iterable[int]) -> None:
    """``work`` on each item; what it raises is raised here."""
    with ThreadPoolExecutor(_num_threads()) as threads:
        list(threads.map(work, items))


def _num_threads() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
