"""What one layer is made of: static settings, weights, and its part of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from octavo.errors import ModelLoadError
from octavo.kv import KVSpec
from octavo.ops.protocol import AttentionParams
from octavo.step_trees import step_tree

if TYPE_CHECKING:
    from octavo.models.config import ConfigReader
    from octavo.ops.protocol import Array, Cache, LinearWeight

__all__ = [
    "AttentionWeights",
    "DecoderWeights",
    "LayerConfig",
    "LayerStep",
    "LayerWeights",
    "kv_spec",
    "read_windows",
]


Norm: TypeAlias = Any
"""The weight of a norm, an Array; None in families that have no norm in this place."""


@dataclass(frozen=True)
class LayerConfig:
    """What may differ from layer to layer."""

    attention: AttentionParams
    rope: int | None  # which of the model's ropes; None: no position embedding


@dataclass(frozen=True)
class LayerStep:
    """One layer in one step: its settings, its rotation, its cache and where to read and write."""

    attention: AttentionParams
    rope: tuple[Array, Array] | None  # (cos, sin), each f32[tokens, rotary_dim / 2]
    cache: Cache
    plan: Any


@step_tree
@dataclass(frozen=True)
class AttentionWeights:
    """Projections, and the norms of query and key in families that have them."""

    qkv: tuple[LinearWeight, ...]  # [q_features + 2 * kv_features, hidden], or three of its parts
    output: LinearWeight  # [hidden, q_features]
    q_norm: Norm = None
    k_norm: Norm = None


@step_tree
@dataclass(frozen=True)
class LayerWeights:
    """One layer. A family has norms before its two parts, after them, or both."""

    attention: AttentionWeights
    gate_up: LinearWeight  # [2 * intermediate, hidden]
    down: LinearWeight  # [hidden, intermediate]
    attention_norm: Norm = None
    attention_output_norm: Norm = None
    mlp_norm: Norm = None
    mlp_output_norm: Norm = None


@step_tree
@dataclass(frozen=True)
class DecoderWeights:
    """A whole decoder."""

    embedding: Array  # [vocab, hidden]
    layers: tuple[LayerWeights, ...]
    norm: Array
    head: LinearWeight  # [vocab, hidden]


def kv_spec(attention: AttentionParams, num_kv_heads: int, head_dim: int, dtype: str) -> KVSpec:
    """The cache needs of a layer: windowed where its attention is."""
    if attention.window is None:
        return KVSpec("full", num_kv_heads, head_dim, dtype)
    return KVSpec("sliding", num_kv_heads, head_dim, dtype, attention.window)


def read_windows(
    reader: ConfigReader, num_layers: int, is_sliding: Callable[[int], bool]
) -> list[int | None]:
    """The attention window of each layer in tokens, None for full attention.

    ``layer_types`` decides where the config has it, else ``is_sliding(layer)``.
    """
    layer_types = reader.per_layer("layer_types", num_layers) or [
        "sliding_attention" if is_sliding(layer) else "full_attention"
        for layer in range(num_layers)
    ]
    for layer, layer_type in enumerate(layer_types):
        if layer_type not in ("full_attention", "sliding_attention"):
            raise ModelLoadError(
                f"config.json: layer_types[{layer}] is {layer_type!r}; "
                "expected 'full_attention' or 'sliding_attention'."
            )
    if "sliding_attention" not in layer_types:
        return [None] * num_layers
    window = reader.integer("sliding_window")
    return [window if kind == "sliding_attention" else None for kind in layer_types]
