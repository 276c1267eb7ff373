"""The backend ``torch``: the host's CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo.api import Capabilities, DeviceError, MemoryInfo, host_memory
from octavo_torch.backend import TorchBackend
from octavo_torch.quantized import QUANTIZATION

__all__ = ["TorchCpuBackend"]

_DTYPES = ("float32", "bfloat16", "float16")


class TorchCpuBackend(TorchBackend):
    """torch on the CPU, as the GPU backends use it, graphs and Triton aside."""

    caps = Capabilities(
        dtypes=_DTYPES,
        kv_dtypes=_DTYPES,
        block_sizes=(16, 32, 64, 128, 8, 4),
        sliding_window=True,
        soft_cap=True,
        sinks=True,
        quantization=QUANTIZATION,  # unpacked in every call: they save memory, not time
        host_swap=True,
    )

    def __init__(self, index: int, options: Mapping[str, Any]) -> None:
        if index != 0:
            raise DeviceError(f"There is no device cpu:{index}; the CPU is one device, cpu:0.")
        super().__init__(torch.device("cpu"), options)

    def memory(self) -> MemoryInfo:
        """Of the machine, or of the control group that confines this process."""
        return host_memory()
