"""Qwen 3: Qwen 2 with a norm on every head of query and key, and no bias unless asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from octavo.models.config import DecoderConfig
from octavo.models.qwen2 import Qwen2

if TYPE_CHECKING:
    from octavo.models.base import WeightLoader
    from octavo.models.config import ConfigReader
    from octavo.models.layers import AttentionWeights
    from octavo.ops.protocol import Array, Ops

__all__ = ["Qwen3"]


class Qwen3(Qwen2):
    """Qwen3ForCausalLM."""

    defaults: ClassVar[Mapping[str, Any]] = {**Qwen2.defaults, "head_dim": 128}

    def read_config(self, reader: ConfigReader) -> DecoderConfig:
        """The biases are as the config says, unlike in Qwen 2."""
        return DecoderConfig.read(reader)

    def load_attention(self, loader: WeightLoader, name: str) -> AttentionWeights:
        """Llama's, and a norm over ``head_dim`` for query and key."""
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
