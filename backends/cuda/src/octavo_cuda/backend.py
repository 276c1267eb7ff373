"""The CUDA backend: what NVIDIA's GPUs have of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo_cuda.capabilities import capabilities
from octavo_torch.gpu import GpuBackend
from octavo_torch.gpu_options import GpuOptions

__all__ = ["CudaBackend"]


class CudaBackend(GpuBackend):
    """``octavo.api.Backend`` on one NVIDIA GPU."""

    def __init__(self, index: int, options: Mapping[str, Any]) -> None:
        super().__init__("cuda", index, GpuOptions.parse(options, "cuda"))
        self.caps = capabilities(torch.cuda.get_device_capability(self.device), self.options)
