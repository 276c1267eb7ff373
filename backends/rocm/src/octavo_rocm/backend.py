"""The ROCm backend: what AMD's GPUs have of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo.api import DeviceError
from octavo_rocm.architectures import ARCHITECTURES
from octavo_rocm.capabilities import capabilities
from octavo_torch.gpu import GpuBackend
from octavo_torch.gpu_options import GpuOptions

__all__ = ["RocmBackend"]


class RocmBackend(GpuBackend):
    """``octavo.api.Backend`` on one AMD GPU, which torch calls a cuda device."""

    def __init__(self, index: int, options: Mapping[str, Any]) -> None:
        super().__init__("rocm", index, GpuOptions.parse(options, "rocm"))
        properties: Any = torch.cuda.get_device_properties(self.device)
        arch = str(properties.gcnArchName).partition(":")[0]
        if arch not in ARCHITECTURES:
            raise DeviceError(
                f"rocm:{index} is of architecture {arch}; served are {', '.join(ARCHITECTURES)}."
            )
        self.caps = capabilities(arch, self.options)
