"""The options of the backend ``xpu``: those of every GPU, graphs where torch records them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from octavo.api import UsageError
from octavo_torch.gpu_options import GpuOptions
from octavo_xpu.graphs import has_graphs

__all__ = ["parse_options"]


def parse_options(options: Mapping[str, Any]) -> GpuOptions:
    """Without graphs where this torch has none; UsageError if just they were asked for."""
    parsed = GpuOptions.parse(options, "xpu")
    if has_graphs():
        return parsed
    if "graphs" in options and parsed.graphs:
        raise UsageError(
            f"Option graphs of backend 'xpu' is true, and torch {torch.__version__} records no "
            "graphs on Intel GPUs (torch.xpu.XPUGraph is not there). Install a newer torch, or "
            "leave the option out of [options.xpu] in plugins.toml: graphs are then used where "
            "torch has them."
        )
    return replace(parsed, graphs=False)
