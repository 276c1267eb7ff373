"""The machine through the native backend's own kernels: one instruction, without an engine."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from engines import EngineOptions
from engines.machine_engine import GEMM_SIZE, READ_BYTES, gemm_gflop_per_s, median_s
from octavo_cpu.native.instruction import INSTRUCTION, Element, Opcode, Scheme
from octavo_cpu.native.library import Context, PackedLinear, variants

VECTOR_SIZE = 2048


class KernelMachine:
    """`linear` at its two ends: many rows, bound by arithmetic; one row, bound by memory."""

    def __init__(self, num_threads: int) -> None:
        self.description = f"instruction sets here: {', '.join(variants())}"
        self._context = Context(num_threads)
        self._square = self._pack(GEMM_SIZE, GEMM_SIZE)
        self._tall = self._pack(READ_BYTES // 2 // VECTOR_SIZE, VECTOR_SIZE)
        self._matrix = np.ones((GEMM_SIZE, GEMM_SIZE), ml_dtypes.bfloat16)
        self._vector = np.ones((1, VECTOR_SIZE), ml_dtypes.bfloat16)

    def bf16_gemm_gflop_per_s(self) -> float:
        """2048 x 2048 x 2048, one matrix packed beforehand, as weights are."""
        return gemm_gflop_per_s(lambda: self._linear(self._matrix, self._square))

    def bf16_gemv_gb_per_s(self) -> float:
        """Bytes of weights that one row's product with 1 GiB of them reads."""
        return READ_BYTES / median_s(lambda: self._linear(self._vector, self._tall)) / 1e9

    def _pack(self, out_features: int, in_features: int) -> PackedLinear:
        rows = np.ones((out_features, in_features), ml_dtypes.bfloat16)
        return self._context.pack(Scheme.BF16, rows, out_features, in_features, None)

    def _linear(self, x: NDArray[ml_dtypes.bfloat16], weight: PackedLinear) -> None:
        out = np.empty((len(x), weight.out_features), ml_dtypes.bfloat16)
        instruction = np.zeros(1, INSTRUCTION)
        instruction["opcode"], instruction["element"] = Opcode.LINEAR, Element.BF16
        instruction["operands"] = -1
        instruction["operands"][0, :3] = 0, 1, 2
        instruction["sizes"][0, :4] = len(x), x.shape[1], weight.in_features, weight.out_features
        pointers = np.array([x.ctypes.data, weight.handle, out.ctypes.data], np.uint64)
        self._context.run(instruction, pointers)


def load(options: EngineOptions) -> KernelMachine:
    return KernelMachine(options.num_threads)
