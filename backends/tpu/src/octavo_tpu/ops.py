"""The op set on JAX: the portable ops, overridden where XLA does better with another form."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax.numpy as jnp

from octavo.api import AttentionParams, LinearWeight, PortableOps, SampleResult, SamplingBatch
from octavo_tpu import xla_attention
from octavo_tpu.caches import XlaCache
from octavo_tpu.cpu_products import TurnedLinear, dot, product_of, turned_product
from octavo_tpu.sampling import sample, with_logprobs
from octavo_tpu.traced_once import traced_once

__all__ = ["JaxOps"]

Array: TypeAlias = Any  # a jax.Array

_STATIC_PLATFORMS = frozenset({"neuron"})
"""Whose compiler takes no branches, and has to know how many turns a loop has: so AWS says in the
known issues of JAX NeuronX."""


class JaxOps(PortableOps):
    """For every platform; a platform's own kernels come as attention backends."""

    portable_write_kv = portable_paged_attention = None  # it would gather every cached key at once

    def __init__(self, platform: str = "cpu") -> None:
        """``platform`` is JAX's name for what computes."""
        super().__init__(jnp)
        self._is_static = platform in _STATIC_PLATFORMS
        self._is_cpu = platform == "cpu"
        self.traces: dict[Any, Any] = {}

    rms_norm = traced_once(PortableOps.rms_norm)
    add_rms_norm = traced_once(PortableOps.add_rms_norm)
    layer_norm = traced_once(PortableOps.layer_norm)
    rope = traced_once(PortableOps.rope)
    silu_mul = traced_once(PortableOps.silu_mul)
    gelu_mul = traced_once(PortableOps.gelu_mul)

    @traced_once
    def linear(self, x: Array, weight: LinearWeight) -> Array:
        """``x @ weight.T + bias``, summed in float32 without a float32 copy of the weight."""
        if isinstance(weight, TurnedLinear):
            product = turned_product(x, weight.weight)
        else:
            product = (product_of if self._is_cpu else dot)(x, weight.weight)
        if weight.bias is not None:
            product = product + weight.bias.astype(jnp.float32)
        return product.astype(x.dtype)

    def sample(self, logits: Array, sampling: SamplingBatch) -> SampleResult:
        """A token for each row; see ``octavo_tpu.sampling``."""
        if not logits.shape[0]:
            return super().sample(logits, sampling)
        return sample(logits, sampling, branches=not self._is_static)

    def token_logprobs(self, logits: Array, token_ids: Array, num_logprobs: int) -> SampleResult:
        """Of given tokens and of the likeliest."""
        return with_logprobs(logits.astype(jnp.float32), token_ids, num_logprobs, None)

    def write_kv(self, cache: XlaCache, k: Array, v: Array, plan: Any) -> XlaCache:
        """Store K and V of this step at the plan's slots. The argument ``cache`` is dead."""
        return xla_attention.write_kv(cache, k, v, plan.slots)

    @traced_once
    def paged_attention(
        self,
        q: Array,
        cache: XlaCache,
        plan: Any,
        params: AttentionParams,
        sinks: Array | None = None,
    ) -> Array:
        """Attention of each token over its sequence's cached keys."""
        return xla_attention.paged_attention(
            q,
            cache,
            plan,
            params,
            sinks,
            ends_early=not self._is_static,
            short_decodes=self._is_cpu,
        )
