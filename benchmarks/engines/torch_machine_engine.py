"""The machine through torch: its bfloat16 GEMM rate, in a process that loads torch alone."""

from __future__ import annotations

import torch

from engines import EngineOptions
from engines.machine_engine import GEMM_SIZE, gemm_gflop_per_s


class TorchMachine:
    """oneDNN's matrix product, which packs both matrices in every call."""

    def __init__(self, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        torch.manual_seed(0)
        self.description = f"torch {torch.__version__}"
        self._left = torch.rand(GEMM_SIZE, GEMM_SIZE).bfloat16()
        self._right = torch.rand(GEMM_SIZE, GEMM_SIZE).bfloat16()
        self._left @ self._right

    def bf16_gemm_gflop_per_s(self) -> float:
        """2048 x 2048 x 2048, bfloat16 in and out."""
        return gemm_gflop_per_s(lambda: self._left @ self._right)


def load(options: EngineOptions) -> TorchMachine:
    return TorchMachine(options.num_threads)
