"""Qwen 2 and 2.5: Llama with biases on query, key and value, and windows in the upper layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from octavo.models.layers import read_windows
from octavo.models.llama import Llama

if TYPE_CHECKING:
    from octavo.models.config import ConfigReader, DecoderConfig

__all__ = ["Qwen2"]


class Qwen2(Llama):
    """Qwen2ForCausalLM."""

    defaults: ClassVar[Mapping[str, Any]] = {
        **Llama.defaults,
        "max_position_embeddings": 32_768,
        "num_key_value_heads": 32,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
    }

    def read_config(self, reader: ConfigReader) -> DecoderConfig:
        """Llama's, with the one bias that is always there."""
        return replace(super().read_config(reader), qkv_bias=True, output_bias=False)

    def read_windows(self, reader: ConfigReader) -> list[int | None]:
        """Windows from layer ``max_window_layers`` on, where they are switched on at all."""
        has_window = reader.flag("use_sliding_window") and reader.get("sliding_window") is not None
        first_sliding = reader.integer("max_window_layers", minimum=0)
        return read_windows(
            reader, self.config.num_layers, lambda layer: has_window and layer >= first_sliding
        )
