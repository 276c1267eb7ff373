"""Llama 2 and 3: norm, attention, norm, gated MLP; the layer that most other families vary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from octavo.models.decoder import Decoder
from octavo.models.layers import AttentionWeights, LayerStep, LayerWeights

if TYPE_CHECKING:
    from octavo.models.base import WeightLoader
    from octavo.ops.protocol import Array, Cache, LinearWeight, Ops

__all__ = ["Llama"]


class Llama(Decoder):
    """LlamaForCausalLM: every kind of rope scaling, optional biases, tied embeddings or not."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
    }

    def load_layer(self, loader: WeightLoader, name: str) -> LayerWeights:
        """The weights of one layer; ``name`` is its prefix in the checkpoint."""
        hidden_size = self.config.hidden_size
        gate_up, down = self.load_mlp(loader, f"{name}.mlp")
        return LayerWeights(
            attention_norm=self.load_norm(loader, f"{name}.input_layernorm", hidden_size),
            attention=self.load_attention(loader, f"{name}.self_attn"),
            mlp_norm=self.load_norm(loader, f"{name}.post_attention_layernorm", hidden_size),
            gate_up=gate_up,
            down=down,
        )

    def load_attention(self, loader: WeightLoader, name: str) -> AttentionWeights:
        """Query, key and value, in one projection if they can be, and the output projection."""
        config = self.config
        return AttentionWeights(
            qkv=loader.linears(
                *(f"{name}.{part}_proj" for part in "qkv"),
                in_features=config.hidden_size,
                out_features=[config.q_features, config.kv_features, config.kv_features],
                bias=config.qkv_bias,
                split=config.qkv_split,
            ),
            output=loader.linear(
                f"{name}.o_proj",
                in_features=config.q_features,
                out_features=[config.hidden_size],
                bias=config.output_bias,
                split=config.output_split,
            ),
        )

    def load_mlp(self, loader: WeightLoader, name: str) -> tuple[LinearWeight, LinearWeight]:
        """Gate and up in one projection, and down."""
        config = self.config
        gate_up = loader.linear(
            f"{name}.gate_proj",
            f"{name}.up_proj",
            in_features=config.hidden_size,
            out_features=[config.intermediate_size, config.intermediate_size],
            bias=config.mlp_bias,
            split=config.gate_up_split,
        )
        return gate_up, self.load_down(loader, name)

    def load_down(self, loader: WeightLoader, name: str) -> LinearWeight:
        """The projection back to the residual stream."""
        config = self.config
        return loader.linear(
            f"{name}.down_proj",
            in_features=config.intermediate_size,
            out_features=[config.hidden_size],
            bias=config.mlp_bias,
            split=config.down_split,
        )

    def block(
        self, ops: Ops, weights: LayerWeights, step: LayerStep, x: Array, residual: Array | None
    ) -> tuple[Array, Array, Cache]:
        """Each part reads a normed copy of the stream and adds to it."""
        x, residual = self.norm(ops, x, residual, weights.attention_norm)
        x, cache = self.attention(ops, weights.attention, step, x)
        x, residual = self.norm(ops, x, residual, weights.mlp_norm)
        x = ops.mlp(x, weights.gate_up, weights.down, self.config.activation)
        return x, residual, cache

    def attention(
        self, ops: Ops, weights: AttentionWeights, step: LayerStep, x: Array
    ) -> tuple[Array, Cache]:
        """Project, rotate, attend over the cache, project back: [tokens, hidden] to the same."""
        q, k, v = self.project(ops, weights, x)
        where = (step.cache, step.plan, step.attention)
        if step.rope is None:
            attended, cache = ops.attend(q, k, v, *where)
        else:
            attended, cache = ops.rope_attend(q, k, v, *step.rope, *where)
        attended = attended.reshape(x.shape[0], self.config.q_features)
        return ops.linear(attended, weights.output), cache

    def project(self, ops: Ops, weights: AttentionWeights, x: Array) -> tuple[Array, Array, Array]:
        """Query, key and value, each [tokens, heads, head_dim]."""
        config, tokens = self.config, x.shape[0]
        parts = [ops.linear(x, weight) for weight in weights.qkv]
        if len(parts) == 1:
            k_start, v_start = config.q_features, config.q_features + config.kv_features
            (qkv,) = parts
            parts = [qkv[:, :k_start], qkv[:, k_start:v_start], qkv[:, v_start:]]
        q, k, v = parts
        return (
            q.reshape(tokens, config.num_heads, config.head_dim),
            k.reshape(tokens, config.num_kv_heads, config.head_dim),
            v.reshape(tokens, config.num_kv_heads, config.head_dim),
        )
