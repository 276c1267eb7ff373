"""The op set written once over an array namespace: NumPy, torch and JAX run the same lines.

A backend subclasses ``PortableOps`` and overrides method by method, with the same signatures;
composites (``add_rms_norm``, ``attend``, ``mlp``) call the leaf ops through ``self``, so a faster
leaf serves them at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from array_api_compat import is_numpy_namespace

from octavo.ops import activations, attention, rope, sampling_numpy
from octavo.ops import sampling as portable_sampling
from octavo.ops.arrays import check_namespace
from octavo.ops.protocol import Activation, AttentionParams, RopeSpec, SampleResult, SamplingBatch

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from octavo.ops.arrays import Array, Namespace
    from octavo.ops.protocol import Cache, LinearWeight

__all__ = ["PortableOps"]


class PortableOps:
    """Every op of ``octavo.ops.protocol.Ops`` over the array namespace ``xp``.

    ``xp`` is ``array_api_compat.numpy``, ``array_api_compat.torch``, ``jax.numpy``, or any module
    that has what ``octavo.ops.arrays.Namespace`` lists; BackendError names what it lacks. Caches
    are ``PortableCache``, prepared weights ``PortableLinear``, plans ``AttentionPlan``.
    """

    def __init__(self, xp: Namespace) -> None:
        check_namespace(xp)
        self.xp = xp

    def _float32(self, x: Any) -> Any:
        return self.xp.astype(x, self.xp.float32, copy=False)

    def _like(self, x: Any, model: Any) -> Any:
        """A float32 result rounded to the dtype of the op's input."""
        return self.xp.astype(x, model.dtype, copy=False)

    def embed(
        self, token_ids: Int[Array, "tokens"], table: Float[Array, "vocab hidden"]
    ) -> Float[Array, "tokens hidden"]:
        """Rows of the embedding table."""
        return self.xp.take(table, token_ids, axis=0)

    def linear(
        self, x: Float[Array, "tokens in_features"], weight: LinearWeight
    ) -> Float[Array, "tokens out_features"]:
        """``x @ weight.T + bias``."""
        product = self.xp.matmul(self._float32(x), self._float32(weight.weight).T)
        if weight.bias is not None:
            product = product + self._float32(weight.bias)
        return self._like(product, x)

    def rms_norm(
        self, x: Float[Array, "*batch dim"], weight: Float[Array, "dim"], eps: float
    ) -> Float[Array, "*batch dim"]:
        """``x / sqrt(mean(x²) + eps) * weight`` over the last axis."""
        x32 = self._float32(x)
        scale = 1.0 / self.xp.sqrt(self.xp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
        return self._like(x32 * scale * self._float32(weight), x)

    def add_rms_norm(
        self,
        x: Float[Array, "tokens dim"],
        residual: Float[Array, "tokens dim"],
        weight: Float[Array, "dim"],
        eps: float,
    ) -> tuple[Float[Array, "tokens dim"], Float[Array, "tokens dim"]]:
        """``(rms_norm(x + residual), x + residual)``."""
        total = x + residual
        return self.rms_norm(total, weight, eps), total

    def layer_norm(
        self,
        x: Float[Array, "*batch dim"],
        weight: Float[Array, "dim"],
        bias: Float[Array, "dim"] | None,
        eps: float,
    ) -> Float[Array, "*batch dim"]:
        """Mean and variance normalisation over the last axis."""
        x32 = self._float32(x)
        centred = x32 - self.xp.mean(x32, axis=-1, keepdims=True)
        scale = 1.0 / self.xp.sqrt(self.xp.mean(centred * centred, axis=-1, keepdims=True) + eps)
        normalised = centred * scale * self._float32(weight)
        if bias is not None:
            normalised = normalised + self._float32(bias)
        return self._like(normalised, x)

    def rope_table(
        self,
        positions: Int[Array, "tokens"],
        context_lens: Int[Array, "tokens"],
        spec: RopeSpec,
    ) -> tuple[Float[Array, "tokens half"], Float[Array, "tokens half"]]:
        """(cos, sin) in float32; see ``octavo.ops.rope``."""
        return rope.rope_table(self.xp, positions, context_lens, spec)

    def rope(
        self,
        x: Float[Array, "tokens heads head_dim"],
        cos: Float[Array, "tokens half"],
        sin: Float[Array, "tokens half"],
    ) -> Float[Array, "tokens heads head_dim"]:
        """Rotate the first ``2 * half`` features, pairing i with i + half."""
        return rope.rope(self.xp, x, cos, sin)

    def silu_mul(self, gate_up: Float[Array, "tokens two_inner"]) -> Float[Array, "tokens inner"]:
        """``silu(gate) * up`` where gate is the first half of the features and up the second."""
        gate, up = self._halves(gate_up)
        return self._like(activations.silu(self.xp, gate) * up, gate_up)

    def gelu_mul(
        self, gate_up: Float[Array, "tokens two_inner"], *, tanh: bool
    ) -> Float[Array, "tokens inner"]:
        """``gelu(gate) * up``; tanh chooses the tanh approximation over erf."""
        gate, up = self._halves(gate_up)
        return self._like(activations.gelu(self.xp, gate, tanh=tanh) * up, gate_up)

    def _halves(self, gate_up: Any) -> tuple[Any, Any]:
        gate_up32 = self._float32(gate_up)
        inner = gate_up.shape[1] // 2
        return gate_up32[:, :inner], gate_up32[:, inner:]

    def gelu(self, x: Float[Array, "tokens inner"], *, tanh: bool) -> Float[Array, "tokens inner"]:
        """GELU; tanh chooses the tanh approximation over erf."""
        return self._like(activations.gelu(self.xp, self._float32(x), tanh=tanh), x)

    def soft_cap(self, x: Float[Array, "*batch"], cap: float) -> Float[Array, "*batch"]:
        """``cap * tanh(x / cap)``."""
        return self._like(activations.soft_cap(self.xp, self._float32(x), cap), x)

    def write_kv(
        self,
        cache: Cache,
        k: Float[Array, "tokens kv_heads head_dim"],
        v: Float[Array, "tokens kv_heads head_dim"],
        plan: Any,
    ) -> Cache:
        """Store K and V of this step at the plan's slots. The argument ``cache`` is dead."""
        return attention.write_kv(self.xp, cache, k, v, plan)

    def paged_attention(
        self,
        q: Float[Array, "tokens heads head_dim"],
        cache: Cache,
        plan: Any,
        params: AttentionParams,
        sinks: Float[Array, "heads"] | None = None,
    ) -> Float[Array, "tokens heads head_dim"]:
        """Attention of each token over its sequence's cached keys; see ``octavo.ops.attention``."""
        return attention.paged_attention(self.xp, q, cache, plan, params, sinks)

    def attend(
        self,
        q: Float[Array, "tokens heads head_dim"],
        k: Float[Array, "tokens kv_heads head_dim"],
        v: Float[Array, "tokens kv_heads head_dim"],
        cache: Cache,
        plan: Any,
        params: AttentionParams,
        sinks: Float[Array, "heads"] | None = None,
    ) -> tuple[Float[Array, "tokens heads head_dim"], Cache]:
        """``write_kv`` then ``paged_attention``. The argument ``cache`` is dead."""
        cache = self.write_kv(cache, k, v, plan)
        return self.paged_attention(q, cache, plan, params, sinks), cache

    def rope_attend(
        self,
        q: Float[Array, "tokens heads head_dim"],
        k: Float[Array, "tokens kv_heads head_dim"],
        v: Float[Array, "tokens kv_heads head_dim"],
        cos: Float[Array, "tokens half"],
        sin: Float[Array, "tokens half"],
        cache: Cache,
        plan: Any,
        params: AttentionParams,
        sinks: Float[Array, "heads"] | None = None,
    ) -> tuple[Float[Array, "tokens heads head_dim"], Cache]:
        """``rope`` of q and of k, then ``attend``. The argument ``cache`` is dead."""
        q, k = self.rope(q, cos, sin), self.rope(k, cos, sin)
        return self.attend(q, k, v, cache, plan, params, sinks)

    def mlp(
        self,
        x: Float[Array, "tokens hidden"],
        gate_up: LinearWeight,
        down: LinearWeight,
        activation: Activation,
    ) -> Float[Array, "tokens hidden"]:
        """Gated feed-forward, ``down(act(gate) * up)``."""
        projected = self.linear(x, gate_up)
        if activation == "silu":
            return self.linear(self.silu_mul(projected), down)
        return self.linear(self.gelu_mul(projected, tanh=activation == "gelu_tanh"), down)

    def take_rows(
        self, x: Float[Array, "tokens dim"], rows: Int[Array, "rows"]
    ) -> Float[Array, "rows dim"]:
        """Rows of x by index."""
        return self.xp.take(x, rows, axis=0)

    def fill_tokens(
        self,
        token_ids: Int[Array, "tokens"],
        sampled: Int[Array, "rows"],
        sources: Int[Array, "tokens"],
    ) -> Int[Array, "tokens"]:
        """``sampled[sources - 1]`` where sources > 0, and ``token_ids`` elsewhere."""
        xp = self.xp
        indices = xp.maximum(sources - 1, xp.zeros_like(sources))
        return xp.where(sources > 0, xp.take(sampled, indices, axis=0), token_ids)

    def sample(self, logits: Float[Array, "rows vocab"], sampling: SamplingBatch) -> SampleResult:
        """One token per row of float32 logits; see ``octavo.ops.sampling``.

        On NumPy through ``sampling_numpy``, which gives the same tokens sooner.
        """
        if is_numpy_namespace(self.xp):
            return sampling_numpy.sample(logits, sampling)
        return portable_sampling.sample(self.xp, logits, sampling)

    def token_logprobs(
        self, logits: Float[Array, "rows vocab"], token_ids: Int[Array, "rows"], num_logprobs: int
    ) -> SampleResult:
        """Log-probabilities and ranks of given tokens; token_ids pass through."""
        if is_numpy_namespace(self.xp):
            return sampling_numpy.token_logprobs(logits, token_ids, num_logprobs)
        return portable_sampling.token_logprobs(self.xp, logits, token_ids, num_logprobs)

    def all_reduce(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Sum over the tensor-parallel group: the identity, as there is one device."""
        return x
