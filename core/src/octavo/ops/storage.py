"""How the portable ops hold a layer's cache and a prepared weight: plain frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.step_trees import step_tree

if TYPE_CHECKING:
    from jaxtyping import Float

    from octavo.ops.arrays import Array

__all__ = ["PortableCache", "PortableLinear"]


@step_tree
@dataclass(frozen=True)
class PortableCache:
    """Keys and values of one layer."""

    k: Float[Array, "num_blocks block_size kv_heads head_dim"]
    v: Float[Array, "num_blocks block_size kv_heads head_dim"]


@step_tree
@dataclass(frozen=True)
class PortableLinear:
    """A weight as checkpoints store it."""

    weight: Float[Array, "out_features in_features"]
    bias: Float[Array, "out_features"] | None = None
