"""Matrix-vector products: read from memory by one core, or by all while that is faster."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

__all__ = ["RowProducts", "ThreadChoice"]

Float32 = NDArray[np.float32]


class ThreadChoice:
    """Decides, step by step, whether a product is worth more than one BLAS thread.

    On an idle machine several cores read memory about a third faster than one. But BLAS's threads
    wait for each other by spinning, at every product: when a neighbour takes one of the cores, a
    step takes 20 times as long. So steps are timed. One that stalls is finished by one thread, and
    the next try comes after a pause that doubles each time.
    """

    _NUM_BASELINE_STEPS = 4
    _FIRST_PAUSE_STEPS = 16
    _LONGEST_PAUSE_STEPS = 4096
    _STALL = 1.5  # a step this many times as long as with one thread has stalled

    def __init__(self, max_threads: int) -> None:
        self.threads = 1
        self._max_threads = max_threads
        self._single_s = math.inf  # one row's step on one thread, lately
        self._steps_to_try = self._NUM_BASELINE_STEPS
        self._pause_steps = self._FIRST_PAUSE_STEPS
        self._spent_s = 0.0
        self._num_rows = 0

    def start_step(self, num_rows: int) -> None:
        """A step of ``num_rows`` rows begins; judge the one before and choose.

        0 stands for a step of more rows, where single rows occur but are no measure.
        """
        if self._spent_s:
            self._judge(self._spent_s / self._num_rows)
        self._num_rows, self._spent_s = num_rows, 0.0
        if num_rows and self.threads == 1 and self._max_threads > 1:
            self._steps_to_try -= 1
            if self._steps_to_try < 0:
                self.threads = self._max_threads

    def note(self, seconds: float) -> None:
        """A product took so long; give up on several threads at once if they stall."""
        if not self._num_rows:
            return
        self._spent_s += seconds
        if self.threads > 1 and self._spent_s > self._STALL * self._single_s * self._num_rows:
            self.threads = 1
            self._spent_s = 0.0  # a measure of neither
            self._num_rows = 0
            self._steps_to_try = self._pause_steps
            self._pause_steps = min(2 * self._pause_steps, self._LONGEST_PAUSE_STEPS)

    def _judge(self, seconds_per_row: float) -> None:
        if self.threads > 1:
            self._pause_steps = self._FIRST_PAUSE_STEPS  # it went well
        elif self._single_s == math.inf:
            self._single_s = seconds_per_row
        else:
            self._single_s += 0.25 * (seconds_per_row - self._single_s)


class RowProducts:
    """Multiplies a few rows with a matrix, one matrix-vector product each."""

    def __init__(self, max_threads: int) -> None:
        self._choice = ThreadChoice(max_threads)
        self._setters: list[Callable[[int], None]] = [
            library.set_num_threads
            for library in threadpoolctl.ThreadpoolController().lib_controllers
            if library.user_api == "blas"
        ]

    def start_step(self, num_rows: int) -> None:
        """A step of ``num_rows`` rows begins; 0 if it has more than are multiplied one by one."""
        self._choice.start_step(num_rows)

    def multiply(self, rows: Float32, matrix: Float32, out: Float32) -> None:
        """``out[i] = rows[i] @ matrix``. Outside of this, BLAS has one thread."""
        threads = self._choice.threads
        if threads > 1:
            self._set_threads(threads)
        started_s = time.perf_counter()
        for row, result in zip(rows, out, strict=True):
            np.matmul(row, matrix, out=result)
        self._choice.note(time.perf_counter() - started_s)
        if threads > 1:
            self._set_threads(1)

    def _set_threads(self, count: int) -> None:
        for set_num_threads in self._setters:
            set_num_threads(count)
