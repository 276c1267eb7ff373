"""The machine's rates, measured before and after every turn of an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from worker import Worker

MACHINE_RATES = {
    "machine": ("read_gb_per_s", "read_one_thread_gb_per_s"),
    "torch_machine": ("bf16_gemm_gflop_per_s",),
    "kernel_machine": ("bf16_gemm_gflop_per_s", "bf16_gemv_gb_per_s"),
}


class Machine:
    """The workers that measure the machine, and their last figures."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._last = self._measure()

    def beside(self, worker: Worker, turn: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The turn's figures, and the machine's as the mean of just before and just after it."""
        before = self._last
        figures = turn()
        worker.settle()
        self._last = self._measure()
        return figures | {name: (rate + self._last[name]) / 2 for name, rate in before.items()}

    def _measure(self) -> dict[str, float]:
        return {
            f"{worker.name}_{name}": rate
            for worker in self._workers
            for name, rate in worker.measure(*MACHINE_RATES[worker.name]).items()
        }
