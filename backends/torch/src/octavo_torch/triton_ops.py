"""The op set on GPUs: Triton kernels over what plain torch computes."""

from __future__ import annotations

from typing import Any, TypeAlias

from octavo.api import LinearWeight
from octavo_torch.kernels.quantized_matmul import multiply_packed
from octavo_torch.ops import TorchOps
from octavo_torch.quantized import QuantizedLinear

__all__ = ["TritonOps"]

Array: TypeAlias = Any  # a torch.Tensor


class TritonOps(TorchOps):
    """What has no kernel here is computed by torch."""

    def linear(self, x: Array, weight: LinearWeight) -> Array:
        """``x @ weight.T + bias``; a packed weight is unpacked in registers."""
        if isinstance(weight, QuantizedLinear):
            return multiply_packed(x, weight)
        return super().linear(x, weight)
