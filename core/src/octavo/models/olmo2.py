"""OLMo 2: Llama's parts with norms after them instead of before, and on all of query and key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from octavo.models.layers import AttentionWeights, LayerStep, LayerWeights
from octavo.models.llama import Llama

if TYPE_CHECKING:
    from octavo.models.base import WeightLoader
    from octavo.ops.protocol import Array, Cache, Ops

__all__ = ["Olmo2"]


class Olmo2(Llama):
    """Olmo2ForCausalLM."""

    defaults: ClassVar[Mapping[str, Any]] = {**Llama.defaults, "rms_norm_eps": 1e-5}

    def load_layer(self, loader: WeightLoader, name: str) -> LayerWeights:
        """The norms stand behind attention and MLP."""
        hidden_size = self.config.hidden_size
        gate_up, down = self.load_mlp(loader, f"{name}.mlp")
        return LayerWeights(
            attention=self.load_attention(loader, f"{name}.self_attn"),
            attention_output_norm=self.load_norm(
                loader, f"{name}.post_attention_layernorm", hidden_size
            ),
            gate_up=gate_up,
            down=down,
            mlp_output_norm=self.load_norm(
                loader, f"{name}.post_feedforward_layernorm", hidden_size
            ),
        )

    def load_attention(self, loader: WeightLoader, name: str) -> AttentionWeights:
        """Llama's, and a norm over all heads together for query and key."""
        config = self.config
        return replace(
            super().load_attention(loader, name),
            q_norm=loader.vector(f"{name}.q_norm.weight", config.q_features, split=config.q_split),
            k_norm=loader.vector(
                f"{name}.k_norm.weight", config.kv_features, split=config.kv_split
            ),
        )

    def block(
        self, ops: Ops, weights: LayerWeights, step: LayerStep, x: Array, residual: Array | None
    ) -> tuple[Array, Array, Cache]:
        """Each part reads the stream itself; what it adds is normed."""
        eps = self.config.norm_eps
        stream = x if residual is None else x + residual
        x, cache = self.attention(ops, weights.attention, step, stream)
        stream = stream + ops.rms_norm(x, weights.attention_output_norm, eps)
        x = ops.mlp(stream, weights.gate_up, weights.down, self.config.activation)
        return ops.rms_norm(x, weights.mlp_output_norm, eps), stream, cache

    def project(self, ops: Ops, weights: AttentionWeights, x: Array) -> tuple[Array, Array, Array]:
        """Query and key are normed over all their heads at once."""
        q, k, v = super().project(ops, weights, x)
        return self._norm_heads(ops, q, weights.q_norm), self._norm_heads(ops, k, weights.k_norm), v

    def _norm_heads(self, ops: Ops, x: Array, weight: Array) -> Array:
        tokens, heads, head_dim = x.shape
        flat = ops.rms_norm(x.reshape(tokens, heads * head_dim), weight, self.config.norm_eps)
        normed: Array = flat.reshape(tokens, heads, head_dim)
        return normed
