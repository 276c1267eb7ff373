"""The op set on GPUs: Triton kernels over what plain torch computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, TypeAlias

from octavo.api import AttentionParams, LinearWeight, SampleResult, SamplingBatch
from octavo_torch.caches import TorchCache
from octavo_torch.kernels.add_rms_norm import add_rms_norm
from octavo_torch.kernels.elementwise import elementwise
from octavo_torch.kernels.fill_tokens import fill_tokens
from octavo_torch.kernels.gated import gated
from octavo_torch.kernels.layer_norm import layer_norm
from octavo_torch.kernels.quantized_matmul import multiply_packed
from octavo_torch.kernels.rms_norm import rms_norm
from octavo_torch.kernels.rope_write import rope_write
from octavo_torch.kernels.token_logprobs import MOST_TOP, token_logprobs
from octavo_torch.kernels.write_cache import write_cache
from octavo_torch.ops import TorchOps
from octavo_torch.quantized import QuantizedLinear
from octavo_torch.triton_attention import paged_attention
from octavo_torch.triton_sampling import sample_tokens

__all__ = ["TritonOps"]

Array: TypeAlias = Any  # a torch.Tensor


class TritonOps(TorchOps):
    """What has no kernel here is computed by torch."""

    reads_host_plan: ClassVar[bool] = False

    def linear(self, x: Array, weight: LinearWeight) -> Array:
        """``x @ weight.T + bias``; a packed weight is unpacked in registers."""
        if isinstance(weight, QuantizedLinear):
            return multiply_packed(x, weight)
        return super().linear(x, weight)

    def write_kv(self, cache: TorchCache, k: Array, v: Array, plan: Any) -> TorchCache:
        """Store K and V of this step's tokens at the plan's slots, in place."""
        return write_cache(cache, k, v, plan.slots)

    def paged_attention(
        self,
        q: Array,
        cache: TorchCache,
        plan: Any,
        params: AttentionParams,
        sinks: Array | None = None,
    ) -> Array:
        """Attention of each token over its sequence's cached keys."""
        return paged_attention(q, cache, plan, params, sinks)

    def rope_attend(
        self,
        q: Array,
        k: Array,
        v: Array,
        cos: Array,
        sin: Array,
        cache: TorchCache,
        plan: Any,
        params: AttentionParams,
        sinks: Array | None = None,
    ) -> tuple[Array, TorchCache]:
        """Rotation and the write to the cache in one kernel, then attention."""
        q, cache = rope_write(cache, q, k, v, cos, sin, plan.slots)
        return self.paged_attention(q, cache, plan, params, sinks), cache

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """``x / sqrt(mean(x²) + eps) * weight`` over the last axis."""
        return rms_norm(x, weight, eps)

    def add_rms_norm(
        self, x: Array, residual: Array, weight: Array, eps: float
    ) -> tuple[Array, Array]:
        """``(rms_norm(x + residual), x + residual)``."""
        return add_rms_norm(x, residual, weight, eps)

    def layer_norm(self, x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
        """Mean and variance normalisation over the last axis."""
        return layer_norm(x, weight, bias, eps)

    def silu_mul(self, gate_up: Array) -> Array:
        """``silu(gate) * up`` where gate is the first half of the features and up the second."""
        return gated(gate_up, "silu")

    def gelu_mul(self, gate_up: Array, *, tanh: bool) -> Array:
        """``gelu(gate) * up``; tanh chooses the tanh approximation over erf."""
        return gated(gate_up, "gelu_tanh" if tanh else "gelu")

    def gelu(self, x: Array, *, tanh: bool) -> Array:
        """GELU; tanh chooses the tanh approximation over erf."""
        return elementwise(x, "gelu_tanh" if tanh else "gelu")

    def soft_cap(self, x: Array, cap: float) -> Array:
        """``cap * tanh(x / cap)``."""
        return elementwise(x, "soft_cap", cap)

    def fill_tokens(self, token_ids: Array, sampled: Array, sources: Array) -> Array:
        """``sampled[sources - 1]`` where sources > 0, and ``token_ids`` elsewhere."""
        return fill_tokens(token_ids, sampled, sources)

    def sample(self, logits: Array, sampling: SamplingBatch) -> SampleResult:
        """One token for each row, the core's sampler's."""
        if len(logits) == 0:
            return super().sample(logits, sampling)
        logits = logits if logits.stride(1) == 1 else logits.contiguous()
        token_ids, valid = sample_tokens(logits, sampling)
        result = self.token_logprobs(logits, token_ids, sampling.num_logprobs)
        return replace(result, valid=valid)

    def token_logprobs(self, logits: Array, token_ids: Array, num_logprobs: int) -> SampleResult:
        """Log-probability and rank of the given token in each row, and the likeliest tokens."""
        if not 0 <= num_logprobs <= MOST_TOP or len(logits) == 0:
            return super().token_logprobs(logits, token_ids, num_logprobs)
        logits = logits if logits.stride(1) == 1 else logits.contiguous()
        num_top = min(num_logprobs, logits.shape[1])
        return SampleResult(token_ids, *token_logprobs(logits, token_ids, num_top))
