"""The machine itself, measured in turn with the engines: memory read rate and float32 GEMM rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

READ_BYTES = 1 << 30
GEMM_SIZE = 2048
REPEATS = 5


class Machine:
    """What no engine can pass: bytes read per second, and multiply-adds per second."""

    def __init__(self, num_threads: int) -> None:
        self._parts = np.array_split(np.ones(READ_BYTES // 4, np.float32), num_threads)
        rng = np.random.default_rng(0)
        self._left = rng.random((GEMM_SIZE, GEMM_SIZE), np.float32)
        self._right = rng.random((GEMM_SIZE, GEMM_SIZE), np.float32)

    def read_gb_per_s(self) -> float:
        """Each thread takes the maximum of its part of 1 GiB: vectorised, and bound by memory."""
        with ThreadPoolExecutor(len(self._parts)) as pool:

            def read() -> list[NDArray[np.float32]]:
                return list(pool.map(np.max, self._parts))

            return READ_BYTES / _median_s(read) / 1e9

    def gemm_gflop_per_s(self) -> float:
        """2048 x 2048 x 2048 in float32, through NumPy's BLAS."""
        return 2 * GEMM_SIZE**3 / _median_s(lambda: self._left @ self._right) / 1e9


def _median_s(function: Callable[[], object]) -> float:
    times_s = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        times_s.append(time.perf_counter() - start)
    return float(np.median(times_s))
