"""Gemma 3, text: Gemma 2 with normed query and key, five windowed layers to one full, two ropes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from octavo.models.gemma2 import Gemma2
from octavo.models.layers import AttentionWeights, read_windows

if TYPE_CHECKING:
    from octavo.models.base import HFConfig, WeightLoader
    from octavo.models.config import ConfigReader
    from octavo.ops.protocol import Array, Ops, RopeSpec

__all__ = ["Gemma3"]


class Gemma3(Gemma2):
    """Gemma3ForCausalLM, and the text part of Gemma3ForConditionalGeneration."""

    defaults: ClassVar[Mapping[str, Any]] = {
        **Gemma2.defaults,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "max_position_embeddings": 131_072,
        "rope_local_base_freq": 10_000.0,
        "rope_theta": 1_000_000.0,
        "sliding_window_pattern": 6,
        "vocab_size": 262_208,
    }

    def __init__(self, config: HFConfig) -> None:
        super().__init__(_text_config(config))

    @property
    def max_position_embeddings(self) -> int:
        """As declared: Gemma 3 counts the scaling of its full layers in already."""
        return self.config.max_position_embeddings

    def read_windows(self, reader: ConfigReader) -> list[int | None]:
        """Every sixth layer is full, or what ``sliding_window_pattern`` says."""
        period = reader.integer("sliding_window_pattern")
        return read_windows(reader, self.config.num_layers, lambda layer: (layer + 1) % period != 0)

    def read_ropes(self, reader: ConfigReader, windows: list[int | None]) -> list[RopeSpec | None]:
        """A short base in windowed layers; a long one, perhaps scaled, in full ones."""
        sliding = self.resolve_rope(_rope_parameters(reader, "sliding_attention"))
        full = self.resolve_rope(_rope_parameters(reader, "full_attention"))
        return [full if window is None else sliding for window in windows]

    def load_attention(self, loader: WeightLoader, name: str) -> AttentionWeights:
        """Gemma 2's, and a norm over ``head_dim`` for query and key."""
        return replace(
            super().load_attention(loader, name),
            q_norm=self.load_norm(loader, f"{name}.q_norm", self.config.head_dim),
            k_norm=self.load_norm(loader, f"{name}.k_norm", self.config.head_dim),
        )

    def project(self, ops: Ops, weights: AttentionWeights, x: Array) -> tuple[Array, Array, Array]:
        """Query and key are normed head by head before they are rotated."""
        q, k, v = super().project(ops, weights, x)
        eps = self.config.norm_eps
        return ops.rms_norm(q, weights.q_norm, eps), ops.rms_norm(k, weights.k_norm, eps), v


def _text_config(config: HFConfig) -> HFConfig:
    """The language model's part of a multimodal config; others as they are."""
    text_config = config.get("text_config")
    if not isinstance(text_config, Mapping):
        return config
    tied = config.get("tie_word_embeddings")
    return text_config if tied is None else {**text_config, "tie_word_embeddings": tied}


def _rope_parameters(reader: ConfigReader, layer_type: str) -> dict[str, Any]:
    """Parameters of one kind of layer, from either generation of config.json.

    transformers 5 nests them by layer type; before, ``rope_scaling`` meant the full layers only
    and the windowed ones had ``rope_local_base_freq``.
    """
    nested = reader.get("rope_parameters") or {}
    if not isinstance(nested, Mapping) or any(
        key not in ("full_attention", "sliding_attention") for key in nested
    ):
        raise reader.error("rope_parameters", "parameters for full_attention and sliding_attention")
    parameters = dict(nested.get(layer_type) or {})
    if layer_type == "full_attention":
        parameters.update(reader.get("rope_scaling") or {})
    theta = "rope_theta" if layer_type == "full_attention" else "rope_local_base_freq"
    if parameters.get("rope_theta") is None:
        parameters["rope_theta"] = reader.number(theta)
    return parameters
