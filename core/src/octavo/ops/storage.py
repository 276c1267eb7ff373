"""How the portable ops hold a layer's cache and a prepared weight: plain frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float

    from octavo.ops.arrays import Array

__all__ = ["PortableCache", "PortableLinear"]


@dataclass(frozen=True)
class PortableCache:
    """Keys and values of one layer. A JAX backend registers this as a pytree."""

    k: Float[Array, "num_blocks block_size kv_heads head_dim"]
    v: Float[Array, "num_blocks block_size kv_heads head_dim"]


@dataclass(frozen=True)
class PortableLinear:
    """A weight as checkpoints store it. A JAX backend registers this as a pytree."""

    weight: Float[Array, "out_features in_features"]
    bias: Float[Array, "out_features"] | None = None
