"""Gemma 2: norms around both parts, soft-capped scores and logits, every other layer windowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from octavo.models.config import ConfigReader, DecoderConfig
from octavo.models.layers import DecoderWeights, LayerStep, LayerWeights, read_windows
from octavo.models.llama import Llama

if TYPE_CHECKING:
    from octavo.models.base import StepInput, WeightLoader
    from octavo.ops.protocol import Array, Cache, Ops

__all__ = ["Gemma2"]


class Gemma2(Llama):
    """Gemma2ForCausalLM."""

    defaults: ClassVar[Mapping[str, Any]] = {
        **Llama.defaults,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 8192,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "tie_word_embeddings": True,
    }

    def read_config(self, reader: ConfigReader) -> DecoderConfig:
        """Llama's, with Gemma's own attention scale and soft caps."""
        reader.refuse("use_bidirectional_attention", "encoder use of Gemma is not implemented")
        return replace(
            DecoderConfig.read(reader, activation_field="hidden_activation"),
            attention_scale=reader.number("query_pre_attn_scalar") ** -0.5,
            attention_soft_cap=reader.optional_number("attn_logit_softcapping"),
            logits_soft_cap=reader.optional_number("final_logit_softcapping"),
        )

    def read_windows(self, reader: ConfigReader) -> list[int | None]:
        """Every other layer, from the first on."""
        return read_windows(reader, self.config.num_layers, lambda layer: layer % 2 == 0)

    def load_norm(self, loader: WeightLoader, name: str, size: int) -> Array:
        """Gemma stores the norm's weight minus one."""
        return loader.vector(f"{name}.weight", size, offset=1.0)

    def load_layer(self, loader: WeightLoader, name: str) -> LayerWeights:
        """Llama's parts with two more norms; "post_attention" means what it says here."""
        hidden_size = self.config.hidden_size
        gate_up, down = self.load_mlp(loader, f"{name}.mlp")

        def norm(part: str) -> Array:
            return self.load_norm(loader, f"{name}.{part}_layernorm", hidden_size)

        return LayerWeights(
            attention_norm=norm("input"),
            attention=self.load_attention(loader, f"{name}.self_attn"),
            attention_output_norm=norm("post_attention"),
            mlp_norm=norm("pre_feedforward"),
            gate_up=gate_up,
            down=down,
            mlp_output_norm=norm("post_feedforward"),
        )

    def embed(self, ops: Ops, weights: DecoderWeights, batch: StepInput) -> Array:
        """The table is scaled up, as the output projection shares it."""
        hidden: Array = super().embed(ops, weights, batch) * self.config.hidden_size**0.5
        return hidden

    def block(
        self, ops: Ops, weights: LayerWeights, step: LayerStep, x: Array, residual: Array | None
    ) -> tuple[Array, Array, Cache]:
        """Each part reads a normed copy of the stream, and what it adds is normed too."""
        eps = self.config.norm_eps
        x, residual = self.norm(ops, x, residual, weights.attention_norm)
        x, cache = self.attention(ops, weights.attention, step, x)
        x = ops.rms_norm(x, weights.attention_output_norm, eps)
        x, residual = self.norm(ops, x, residual, weights.mlp_norm)
        x = ops.mlp(x, weights.gate_up, weights.down, self.config.activation)
        return ops.rms_norm(x, weights.mlp_output_norm, eps), residual, cache

    def logits(self, ops: Ops, weights: DecoderWeights, hidden: Array) -> Array:
        """[rows, hidden] → [rows, vocab], capped where the config says so."""
        logits = super().logits(ops, weights, hidden)
        cap = self.config.logits_soft_cap
        return logits if cap is None else ops.soft_cap(logits, cap)
