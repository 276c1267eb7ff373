"""The machine itself, measured in turn with the engines: memory read rates and GEMM rates."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from engines import EngineOptions

READ_BYTES = 1 << 30
GEMM_SIZE = 2048
REPEATS = 5


class Machine:
    """What no engine can pass: bytes read per second, and multiply-adds per second."""

    description = "NumPy"

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads
        self._memory = np.ones(READ_BYTES // 4, np.float32)
        rng = np.random.default_rng(0)
        self._left = rng.random((GEMM_SIZE, GEMM_SIZE), np.float32)
        self._right = rng.random((GEMM_SIZE, GEMM_SIZE), np.float32)

    def read_gb_per_s(self) -> float:
        """With as many threads as the engines have."""
        return self._read_gb_per_s(self._num_threads)

    def read_one_thread_gb_per_s(self) -> float:
        return self._read_gb_per_s(1)

    def gemm_gflop_per_s(self) -> float:
        """2048 x 2048 x 2048 in float32, through NumPy's BLAS."""
        return gemm_gflop_per_s(lambda: self._left @ self._right)

    def _read_gb_per_s(self, num_threads: int) -> float:
        """Each thread takes the maximum of its part of 1 GiB: vectorised, and bound by memory."""
        parts = np.array_split(self._memory, num_threads)
        with ThreadPoolExecutor(num_threads) as pool:
            return READ_BYTES / median_s(lambda: list(pool.map(np.max, parts))) / 1e9


def gemm_gflop_per_s(multiply: Callable[[], object]) -> float:
    """The rate of a call that multiplies two matrices of GEMM_SIZE x GEMM_SIZE."""
    return 2 * GEMM_SIZE**3 / median_s(multiply) / 1e9


def median_s(function: Callable[[], object]) -> float:
    """Seconds of one call, the median of some."""
    times_s = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        times_s.append(time.perf_counter() - start)
    return float(np.median(times_s))


def load(options: EngineOptions) -> Machine:
    return Machine(options.num_threads)
