"""The XPU backend: what Intel's GPUs have of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch

from octavo.api import MemoryInfo
from octavo_torch.gpu import GpuBackend
from octavo_torch.graphs import CaptureApi
from octavo_xpu.capabilities import capabilities
from octavo_xpu.graphs import XpuCapture
from octavo_xpu.options import parse_options

__all__ = ["XpuBackend"]


class XpuBackend(GpuBackend):
    """``octavo.api.Backend`` on one Intel GPU."""

    torch_kind: ClassVar[str] = "xpu"

    def __init__(self, index: int, options: Mapping[str, Any]) -> None:
        super().__init__("xpu", index, parse_options(options))
        self._properties: Any = torch.xpu.get_device_properties(self.device)
        self.caps = capabilities(self._properties, self.options)

    def make_capture(self) -> CaptureApi:
        """What records XPU graphs on ``self.device``."""
        return XpuCapture(self.device)

    def memory(self) -> MemoryInfo:
        """As of any GPU; an integrated one uses the host's memory."""
        is_integrated = bool(getattr(self._properties, "is_integrated_gpu", False))
        return replace(super().memory(), shared_with_host=is_integrated)
