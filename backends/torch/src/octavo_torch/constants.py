"""Constants of a computation, placed on the device once.

To place one takes a transfer from memory that is not pinned: the host waits for all that is queued
before it, and a graph cannot capture it.
"""

from __future__ import annotations

from typing import Any

import array_api_compat.torch as xp
import torch

__all__ = ["KeptConstants"]


class KeptConstants:
    """torch as an array namespace, whose ``asarray`` keeps what it makes of a tuple."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], torch.Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(xp, name)

    def asarray(self, values: Any, *, dtype: Any = None, device: Any = None) -> torch.Tensor:
        """Not to be written to, if ``values`` is a tuple."""
        if not isinstance(values, tuple):
            return xp.asarray(values, dtype=dtype, device=device)
        key = (values, dtype, device)
        if key not in self._kept:
            with torch.inference_mode(mode=False):
                self._kept[key] = xp.asarray(values, dtype=dtype, device=device)
        return self._kept[key]
