"""Phi-3 and Phi-4: Llama stored with fused projections, LongRoPE, and heads rotated in part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from octavo.errors import ModelLoadError
from octavo.models.layers import AttentionWeights, read_windows
from octavo.models.llama import Llama
from octavo.models.rope_parameters import flat_parameters

if TYPE_CHECKING:
    from octavo.models.base import WeightLoader
    from octavo.models.config import ConfigReader
    from octavo.ops.protocol import LinearWeight, RopeSpec

__all__ = ["Phi3"]


class Phi3(Llama):
    """Phi3ForCausalLM."""

    defaults: ClassVar[Mapping[str, Any]] = {
        **Llama.defaults,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
    }

    def read_windows(self, reader: ConfigReader) -> list[int | None]:
        """The same window everywhere, if there is one."""
        has_window = reader.get("sliding_window") is not None
        return read_windows(reader, self.config.num_layers, lambda _layer: has_window)

    def read_ropes(self, reader: ConfigReader, windows: list[int | None]) -> list[RopeSpec | None]:
        """None or LongRoPE, which early checkpoints call "su" or "yarn"."""
        parameters = flat_parameters(reader)
        kind = parameters.pop("type", "default")
        kind = parameters.pop("rope_type", kind)
        if kind not in ("default", "longrope", "su", "yarn"):
            raise ModelLoadError(
                f"config.json: rope type {kind!r} is unknown in Phi-3; known: default, longrope."
            )
        parameters["rope_type"] = "default" if kind == "default" else "longrope"
        return [self.resolve_rope(parameters)] * len(windows)

    def load_attention(self, loader: WeightLoader, name: str) -> AttentionWeights:
        """The checkpoint has query, key and value in one matrix already."""
        config = self.config
        return AttentionWeights(
            qkv=loader.linears(
                f"{name}.qkv_proj",
                in_features=config.hidden_size,
                out_features=[config.q_features + 2 * config.kv_features],
                split=config.qkv_split,
            ),
            output=loader.linear(
                f"{name}.o_proj",
                in_features=config.q_features,
                out_features=[config.hidden_size],
                split=config.output_split,
            ),
        )

    def load_mlp(self, loader: WeightLoader, name: str) -> tuple[LinearWeight, LinearWeight]:
        """Gate and up likewise."""
        config = self.config
        gate_up = loader.linear(
            f"{name}.gate_up_proj",
            in_features=config.hidden_size,
            out_features=[2 * config.intermediate_size],
            split=config.gate_up_split,
        )
        return gate_up, self.load_down(loader, name)
