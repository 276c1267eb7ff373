"""The op set: the portable defaults over MLX, and what MLX itself does faster."""

from __future__ import annotations

import mlx.core as mx

from octavo.api import PortableLinear, PortableOps
from octavo_mlx import namespace

__all__ = ["MlxOps"]


class MlxOps(PortableOps):
    """A method here replaces the portable default of the same name and signature."""

    def __init__(self) -> None:
        super().__init__(namespace)

    def linear(self, x: mx.array, weight: PortableLinear) -> mx.array:
        """``x @ weight.T + bias``: MLX sums half precision in float32 without widening weights."""
        if weight.bias is None:
            return mx.matmul(x, weight.weight.T)
        return mx.addmm(weight.bias, x, weight.weight.T)

    def rms_norm(self, x: mx.array, weight: mx.array, eps: float) -> mx.array:
        """``x / sqrt(mean(x²) + eps) * weight`` over the last axis, in one kernel."""
        return mx.fast.rms_norm(x, weight, eps)
