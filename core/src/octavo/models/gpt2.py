"""GPT-2: learned positions, layer norms with biases, a plain MLP, weights stored [in, out]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from octavo.models.config import MAX_LAYERS, DecoderConfig
from octavo.models.configured import ConfiguredModel
from octavo.models.layers import LayerStep
from octavo.ops.protocol import AttentionParams
from octavo.step_trees import step_tree

if TYPE_CHECKING:
    from octavo.models.base import StepInput, WeightLoader
    from octavo.models.config import ConfigReader
    from octavo.ops.protocol import Array, Cache, LinearWeight, Ops, RopeSpec
    from octavo.splits import Split

__all__ = ["GPT2"]


@step_tree
@dataclass(frozen=True)
class LayerNorm:
    """Weight and bias of a layer norm."""

    weight: Array
    bias: Array


@step_tree
@dataclass(frozen=True)
class GPT2Layer:
    """One layer."""

    attention_norm: LayerNorm
    qkv: LinearWeight  # [3 * hidden, hidden]
    output: LinearWeight  # [hidden, hidden]
    mlp_norm: LayerNorm
    up: LinearWeight  # [intermediate, hidden]
    down: LinearWeight  # [hidden, intermediate]


@step_tree
@dataclass(frozen=True)
class GPT2Weights:
    """The whole model."""

    embedding: Array  # [vocab, hidden]
    position_embedding: Array  # [max_position_embeddings, hidden]
    layers: tuple[GPT2Layer, ...]
    norm: LayerNorm
    head: LinearWeight  # [vocab, hidden]


class GPT2(ConfiguredModel):
    """GPT2LMHeadModel."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "n_positions": 1024,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
    }

    def read_config(self, reader: ConfigReader) -> DecoderConfig:
        """GPT-2 has names of its own for the sizes."""
        reader.refuse("add_cross_attention", "encoder-decoder models are not implemented")
        activation = reader.activation("activation_function")
        if activation == "silu":
            raise reader.error("activation_function", "a kind of gelu in GPT-2")
        hidden_size, num_heads = reader.integer("n_embd"), reader.integer("n_head")
        if hidden_size % num_heads:
            raise reader.error("n_embd", f"a multiple of n_head, {num_heads}")
        head_dim = hidden_size // num_heads
        return DecoderConfig(
            vocab_size=reader.integer("vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=reader.optional_integer("n_inner") or 4 * hidden_size,
            num_layers=reader.integer("n_layer", maximum=MAX_LAYERS),
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_dim=head_dim,
            max_position_embeddings=reader.integer("n_positions"),
            norm_eps=reader.number("layer_norm_epsilon"),
            activation=activation,
            tied_embeddings=reader.flag("tie_word_embeddings"),
            attention_scale=head_dim**-0.5 if reader.flag("scale_attn_weights") else 1.0,
        )

    def read_ropes(self, reader: ConfigReader, windows: list[int | None]) -> list[RopeSpec | None]:  # noqa: ARG002
        """None: positions are learned."""
        return [None] * len(windows)

    def read_attention(
        self, reader: ConfigReader, layer: int, window: int | None
    ) -> AttentionParams:
        """The scale may shrink from layer to layer."""
        divisor = layer + 1 if reader.flag("scale_attn_by_inverse_layer_idx") else 1
        return AttentionParams(scale=self.config.attention_scale / divisor, window=window)

    def load(self, loader: WeightLoader) -> GPT2Weights:
        """Read every weight, in the order of the forward pass."""
        config = self.config
        hidden_size = config.hidden_size
        embedding = loader.embedding("transformer.wte.weight", (config.vocab_size, hidden_size))
        return GPT2Weights(
            embedding=embedding,
            position_embedding=loader.embedding(
                "transformer.wpe.weight", (config.max_position_embeddings, hidden_size)
            ),
            layers=tuple(
                self.load_layer(loader, f"transformer.h.{layer}")
                for layer in range(config.num_layers)
            ),
            norm=self.load_norm(loader, "transformer.ln_f", hidden_size),
            head=self.load_head(loader, embedding),
        )

    def load_head(self, loader: WeightLoader, embedding: Array) -> LinearWeight:
        """The output projection: the embedding again where they are tied."""
        config = self.config
        if config.tied_embeddings:
            return loader.tied_linear(embedding)
        return loader.linear(
            "lm_head", in_features=config.hidden_size, out_features=[config.vocab_size]
        )

    def load_norm(self, loader: WeightLoader, name: str, size: int) -> LayerNorm:
        """Weight and bias of one norm."""
        return LayerNorm(loader.vector(f"{name}.weight", size), loader.vector(f"{name}.bias", size))

    def load_layer(self, loader: WeightLoader, name: str) -> GPT2Layer:
        """The weights of one layer; ``name`` is its prefix in the checkpoint."""
        config, hidden_size = self.config, self.config.hidden_size
        inner_size, q_features = config.intermediate_size, config.q_features

        def linear(part: str, in_features: int, out_features: int, split: Split) -> LinearWeight:
            return loader.linear(
                f"{name}.{part}",
                in_features=in_features,
                out_features=[out_features],
                bias=True,
                transposed=True,
                split=split,
            )

        return GPT2Layer(
            attention_norm=self.load_norm(loader, f"{name}.ln_1", hidden_size),
            qkv=linear("attn.c_attn", hidden_size, 3 * q_features, config.qkv_split),
            output=linear("attn.c_proj", q_features, hidden_size, config.output_split),
            mlp_norm=self.load_norm(loader, f"{name}.ln_2", hidden_size),
            up=linear("mlp.c_fc", hidden_size, inner_size, config.up_split),
            down=linear("mlp.c_proj", inner_size, hidden_size, config.down_split),
        )

    def forward(
        self,
        ops: Ops,
        weights: GPT2Weights,
        caches: tuple[Cache, ...],
        batch: StepInput,
        plans: tuple[Any, ...],
    ) -> tuple[Array, tuple[Cache, ...]]:
        """Hidden states after the final norm, and the caches. The argument ``caches`` is dead."""
        x = ops.embed(batch.token_ids, weights.embedding)
        x = x + ops.embed(batch.positions, weights.position_embedding)
        updated = []
        for config, layer, cache, plan in zip(
            self.layers, weights.layers, caches, plans, strict=True
        ):
            step = LayerStep(config.attention, None, cache, plan)
            normed = self.norm(ops, x, layer.attention_norm)
            attended, new_cache = self.attention(ops, layer, step, normed)
            x = x + attended
            x = x + self.mlp(ops, layer, self.norm(ops, x, layer.mlp_norm))
            updated.append(new_cache)
        return self.norm(ops, x, weights.norm), tuple(updated)

    def norm(self, ops: Ops, x: Array, norm: LayerNorm) -> Array:
        """Mean and variance normalisation."""
        return ops.layer_norm(x, norm.weight, norm.bias, self.config.norm_eps)

    def attention(
        self, ops: Ops, layer: GPT2Layer, step: LayerStep, x: Array
    ) -> tuple[Array, Cache]:
        """Project, attend over the cache, project back: [tokens, hidden] to the same."""
        tokens, q_features = x.shape[0], self.config.q_features
        heads = (tokens, self.config.num_heads, self.config.head_dim)
        qkv = ops.linear(x, layer.qkv)
        q = qkv[:, :q_features].reshape(heads)
        k = qkv[:, q_features : 2 * q_features].reshape(heads)
        v = qkv[:, 2 * q_features :].reshape(heads)
        attended, cache = ops.attend(q, k, v, step.cache, step.plan, step.attention)
        return ops.linear(attended.reshape(tokens, q_features), layer.output), cache

    def mlp(self, ops: Ops, layer: GPT2Layer, x: Array) -> Array:
        """Up, activation, down."""
        inner = ops.gelu(ops.linear(x, layer.up), tanh=self.config.activation == "gelu_tanh")
        return ops.linear(inner, layer.down)

    def logits(self, ops: Ops, weights: GPT2Weights, hidden: Array) -> Array:
        """[rows, hidden] → [rows, vocab]."""
        return ops.linear(hidden, weights.head)
