"""Graphs on Intel GPUs, where torch has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from octavo_torch.graphs import Graph

__all__ = ["XpuCapture", "has_graphs"]


def has_graphs() -> bool:
    """Whether this torch records them."""
    return hasattr(torch.xpu, "XPUGraph")


class XpuCapture:
    """``octavo_torch.graphs.CaptureApi`` of one device; its graphs share their memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._xpu: Any = torch.xpu
        self._pool = self._xpu.graph_pool_handle()

    def capture(self, function: Callable[[], Any]) -> tuple[Graph, Any]:
        """With ``torch.xpu.graph``."""
        graph: Any = self._xpu.XPUGraph()
        with self._xpu.device(self._device), self._xpu.graph(graph, pool=self._pool):
            results = function()
        return graph, results
