"""The backend ``torch``: the host's CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo.api import Capabilities, DeviceError, MemoryInfo, host_memory
from octavo_torch.backend import TorchBackend
from octavo_torch.cpu_options import CpuOptions
from octavo_torch.quantized import QUANTIZATION

__all__ = ["TorchCpuBackend"]

_DTYPES = ("float32", "bfloat16", "float16")


class TorchCpuBackend(TorchBackend):
    """torch on the CPU, as the GPU backends use it, graphs and Triton aside."""

    caps = Capabilities(
        dtypes=_DTYPES,
        kv_dtypes=(*_DTYPES, "float8_e4m3fn", "float8_e5m2", "int8"),
        block_sizes=(16, 32, 64, 128, 8, 4, 2, 1),
        max_head_dim=1024,
        sliding_window=True,
        soft_cap=True,
        sinks=True,
        quantization=QUANTIZATION,  # unpacked in every call: they save memory, not time
        host_swap=True,
        separate_sampling=True,
        int8_scale_bytes=4,
    )

    def __init__(self, index: int, options: Mapping[str, Any]) -> None:
        if index != 0:
            raise DeviceError(f"There is no device cpu:{index}; the CPU is one device, cpu:0.")
        threads = CpuOptions.parse(options).threads
        self._threads_before = None if threads is None else torch.get_num_threads()
        if threads is not None:
            torch.set_num_threads(threads)
        super().__init__(torch.device("cpu"), options)

    def memory(self) -> MemoryInfo:
        """Of the machine, or of the control group that confines this process."""
        return host_memory()

    @property
    def threads(self) -> int:
        """Threads that share an op."""
        return torch.get_num_threads()

    def close(self) -> None:
        """Give torch its own count of threads back."""
        if self._threads_before is not None:
            torch.set_num_threads(self._threads_before)
            self._threads_before = None
