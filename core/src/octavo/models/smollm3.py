"""SmolLM3: Llama in which every fourth layer has no position embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from octavo.models.layers import read_windows
from octavo.models.llama import Llama

if TYPE_CHECKING:
    from octavo.models.config import ConfigReader
    from octavo.ops.protocol import RopeSpec

__all__ = ["SmolLM3"]


class SmolLM3(Llama):
    """SmolLM3ForCausalLM."""

    defaults: ClassVar[Mapping[str, Any]] = {
        **Llama.defaults,
        "max_position_embeddings": 32_768,
        "num_key_value_heads": 4,
        "rope_theta": 2_000_000.0,
        "no_rope_layer_interval": 4,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
    }

    def read_windows(self, reader: ConfigReader) -> list[int | None]:
        """Windows, if switched on, in the layers without rotation."""
        has_window = reader.flag("use_sliding_window") and reader.get("sliding_window") is not None
        has_rope = self._read_has_rope(reader)
        return read_windows(
            reader, self.config.num_layers, lambda layer: has_window and not has_rope[layer]
        )

    def read_ropes(self, reader: ConfigReader, windows: list[int | None]) -> list[RopeSpec | None]:
        """Llama's rotation, save in the layers that go without."""
        ropes = super().read_ropes(reader, windows)
        has_rope = self._read_has_rope(reader)
        return [rope if has else None for rope, has in zip(ropes, has_rope, strict=True)]

    def _read_has_rope(self, reader: ConfigReader) -> list[bool]:
        """Whether each layer rotates; despite its name, ``no_rope_layers`` holds 1 if so."""
        num_layers = self.config.num_layers
        flags = reader.per_layer("no_rope_layers", num_layers)
        if flags is None:
            interval = reader.integer("no_rope_layer_interval")
            return [(layer + 1) % interval != 0 for layer in range(num_layers)]
        if any(flag not in (0, 1) for flag in flags):
            raise reader.error("no_rope_layers", "a list of 0 and 1")
        return [bool(flag) for flag in flags]
