"""The op set on torch: the portable ops, overridden where torch does better."""

from __future__ import annotations

from typing import Any, TypeAlias

import array_api_compat.torch as xp
import torch

from octavo.api import AttentionParams, LinearWeight, PortableOps
from octavo_torch.caches import TorchCache
from octavo_torch.quantized import QuantizedLinear, multiply_unpacked

__all__ = ["TorchOps"]

Array: TypeAlias = Any  # a torch.Tensor


class TorchOps(PortableOps):
    """Computes in float32 and rounds each result to the dtype of the input."""

    def __init__(self) -> None:
        super().__init__(xp)

    def linear(self, x: Array, weight: LinearWeight) -> Array:
        """``x @ weight.T + bias``, of a packed weight too."""
        if isinstance(weight, QuantizedLinear):
            return multiply_unpacked(x, weight)
        return super().linear(x, weight)

    def write_kv(self, cache: TorchCache, k: Array, v: Array, plan: Any) -> TorchCache:
        """Store K and V of this step's tokens at the plan's slots, in place."""
        block_size = cache.k.shape[2]
        slots = plan.slots.long()
        place = (slots // block_size, slice(None), slots % block_size)
        cache.k[place] = k.to(cache.k.dtype)
        cache.v[place] = v.to(cache.v.dtype)
        return cache

    def paged_attention(
        self,
        q: Array,
        cache: TorchCache,
        plan: Any,
        params: AttentionParams,
        sinks: Array | None = None,
    ) -> Array:
        """Attention of each token over its sequence's cached keys."""
        by_token = TorchCache(cache.k.transpose(1, 2), cache.v.transpose(1, 2))
        attended: torch.Tensor = super().paged_attention(q, by_token, plan, params, sinks)
        return attended
