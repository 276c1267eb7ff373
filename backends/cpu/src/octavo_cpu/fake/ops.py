"""The op set of the fake device that does not compute: shapes in, shapes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from octavo_cpu.fake.hollow import HollowArray, HollowLinear, HollowSample
from octavo_cpu.fake.tokens import TokenCache, TokenPlan, uniform_logprobs

if TYPE_CHECKING:
    from octavo.api import Activation, AttentionParams, RopeSpec, SampleResult, SamplingBatch

__all__ = ["HollowOps"]


class HollowOps:
    """Every op of ``octavo.api.Ops``; only ``write_kv`` leaves a trace."""

    def embed(self, token_ids: HollowArray, table: HollowArray) -> HollowArray:
        """[tokens, hidden]."""
        return table.like(token_ids.shape[0], table.shape[1])

    def linear(self, x: HollowArray, weight: HollowLinear) -> HollowArray:
        """[tokens, out_features]."""
        return x.like(*x.shape[:-1], weight.out_features)

    def rms_norm(self, x: HollowArray, weight: HollowArray, eps: float) -> HollowArray:
        """The shape of x."""
        del weight, eps
        return x

    def add_rms_norm(
        self, x: HollowArray, residual: HollowArray, weight: HollowArray, eps: float
    ) -> tuple[HollowArray, HollowArray]:
        """The shape of x, twice."""
        del residual, weight, eps
        return x, x

    def layer_norm(
        self, x: HollowArray, weight: HollowArray, bias: HollowArray | None, eps: float
    ) -> HollowArray:
        """The shape of x."""
        del weight, bias, eps
        return x

    def rope_table(
        self, positions: HollowArray, context_lens: HollowArray, spec: RopeSpec
    ) -> tuple[HollowArray, HollowArray]:
        """[tokens, rotary_dim / 2], twice."""
        del context_lens
        table = HollowArray((positions.shape[0], spec.rotary_dim // 2), np.dtype(np.float32))
        return table, table

    def rope(self, x: HollowArray, cos: HollowArray, sin: HollowArray) -> HollowArray:
        """The shape of x."""
        del cos, sin
        return x

    def silu_mul(self, gate_up: HollowArray) -> HollowArray:
        """Half of the features."""
        return gate_up.like(gate_up.shape[0], gate_up.shape[1] // 2)

    def gelu_mul(self, gate_up: HollowArray, *, tanh: bool) -> HollowArray:
        """Half of the features."""
        del tanh
        return self.silu_mul(gate_up)

    def gelu(self, x: HollowArray, *, tanh: bool) -> HollowArray:
        """The shape of x."""
        del tanh
        return x

    def soft_cap(self, x: HollowArray, cap: float) -> HollowArray:
        """The shape of x."""
        del cap
        return x

    def write_kv(
        self, cache: TokenCache, k: HollowArray, v: HollowArray, plan: TokenPlan
    ) -> TokenCache:
        """Store the step's tokens where their keys and values would go."""
        del k, v
        return cache.write(plan)

    def paged_attention(
        self,
        q: HollowArray,
        cache: TokenCache,
        plan: TokenPlan,
        params: AttentionParams,
        sinks: HollowArray | None = None,
    ) -> HollowArray:
        """The shape of q."""
        del cache, plan, params, sinks
        return q

    def attend(
        self,
        q: HollowArray,
        k: HollowArray,
        v: HollowArray,
        cache: TokenCache,
        plan: TokenPlan,
        params: AttentionParams,
        sinks: HollowArray | None = None,
    ) -> tuple[HollowArray, TokenCache]:
        """``write_kv``, and the shape of q."""
        del params, sinks
        return q, self.write_kv(cache, k, v, plan)

    def rope_attend(
        self,
        q: HollowArray,
        k: HollowArray,
        v: HollowArray,
        cos: HollowArray,
        sin: HollowArray,
        cache: TokenCache,
        plan: TokenPlan,
        params: AttentionParams,
        sinks: HollowArray | None = None,
    ) -> tuple[HollowArray, TokenCache]:
        """``attend``: nothing rotates."""
        del cos, sin
        return self.attend(q, k, v, cache, plan, params, sinks)

    def mlp(
        self, x: HollowArray, gate_up: HollowLinear, down: HollowLinear, activation: Activation
    ) -> HollowArray:
        """[tokens, hidden]."""
        del gate_up, activation
        return self.linear(x, down)

    def take_rows(self, x: HollowArray, rows: HollowArray) -> HollowArray:
        """[rows, dim]."""
        return x.like(rows.shape[0], *x.shape[1:])

    def fill_tokens(
        self, token_ids: HollowArray, sampled: HollowArray, sources: HollowArray
    ) -> HollowArray:
        """Tokens of the step before, where sources say so."""
        del sampled, sources
        return token_ids

    def sample(self, logits: HollowArray, sampling: SamplingBatch) -> Any:
        """How many tokens there are to choose from; the step chooses."""
        del sampling
        return HollowSample(logits.shape[1])

    def token_logprobs(
        self, logits: HollowArray, token_ids: HollowArray, num_logprobs: int
    ) -> SampleResult:
        """All tokens are equally likely."""
        return uniform_logprobs(token_ids.numpy(), num_logprobs, logits.shape[1])

    def all_reduce(self, x: HollowArray) -> HollowArray:
        """There is one device."""
        return x
