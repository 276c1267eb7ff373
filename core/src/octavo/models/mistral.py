"""Mistral: Llama with a sliding window in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from octavo.models.layers import read_windows
from octavo.models.llama import Llama

if TYPE_CHECKING:
    from octavo.models.config import ConfigReader

__all__ = ["Mistral"]


class Mistral(Llama):
    """MistralForCausalLM; ``"sliding_window": null`` (from version 0.2 on) is full attention."""

    defaults: ClassVar[Mapping[str, Any]] = {
        **Llama.defaults,
        "max_position_embeddings": 131_072,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    }

    def read_windows(self, reader: ConfigReader) -> list[int | None]:
        """The same window everywhere, if there is one."""
        has_window = reader.get("sliding_window") is not None
        return read_windows(reader, self.config.num_layers, lambda _layer: has_window)
