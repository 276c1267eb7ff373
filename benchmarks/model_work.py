"""What a model's numbers say must be read and computed: the floors that speed is held against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ModelWork:
    """Of a decoder in Llama's shape; counts are of weights and of elements, not bytes."""

    layer_weights: int  # of all linear layers
    head_weights: int
    query_width: int  # heads * head_dim, over all layers
    kv_width: int  # keys and values of one token, over all layers
    kv_heads: int  # rows of keys and values of one token, over all layers

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> ModelWork:
        hidden, layers = config["hidden_size"], config["num_hidden_layers"]
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        head_dim = config.get("head_dim") or hidden // heads
        attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
        mlp = 3 * hidden * config["intermediate_size"]
        return cls(
            layer_weights=layers * (attention + mlp),
            head_weights=hidden * config["vocab_size"],
            query_width=layers * heads * head_dim,
            kv_width=2 * layers * kv_heads * head_dim,
            kv_heads=2 * layers * kv_heads,
        )

    @classmethod
    def of_folder(cls, folder: Path) -> ModelWork:
        return cls.of_config(json.loads((folder / "config.json").read_text()))

    @property
    def bf16_weight_bytes(self) -> int:
        """Read for one token: linear layers and output projection; of the embedding, only a row."""
        return 2 * (self.layer_weights + self.head_weights)

    def prefill_flop(self, prompt_len: int) -> float:
        """Of a prompt's linear layers and causal attention; logits of its last token only."""
        linear = 2.0 * (prompt_len * self.layer_weights + self.head_weights)
        pairs = prompt_len * (prompt_len + 1) / 2
        return linear + 4.0 * self.query_width * pairs

    def all_weights_flop(self, prompt_len: int) -> float:
        """Twice every weight for every token, as if each token asked for logits; no attention."""
        return 2.0 * prompt_len * (self.layer_weights + self.head_weights)

    def kv_bytes(self, num_tokens: int, kv_cache_dtype: str) -> float:
        """Read by one decode step; int8 rows have a float32 scale each."""
        per_token = self.kv_width + 4 * self.kv_heads
        return num_tokens * (per_token if kv_cache_dtype == "int8" else 2 * self.kv_width)


def gguf_weight_bytes(gguf_path: Path) -> int:
    """Read for one token when the file's blocks are used as they are."""
    from octavo.loading.gguf_file import GGUFFile

    file = GGUFFile(gguf_path)
    matrices = {name: t.num_bytes for name, t in file.tensors.items() if len(t.shape) > 1}
    has_own_head = "output.weight" in matrices
    return sum(matrices.values()) - has_own_head * matrices["token_embd.weight"]
