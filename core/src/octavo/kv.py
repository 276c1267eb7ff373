"""What one layer stores in the paged cache, and how layers group to share a block table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["KV_DTYPES", "KVGroup", "KVSpec", "group_layers"]

KVKind = Literal["full", "sliding", "mla", "cross", "state"]

_ITEM_BYTES = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int8": 1,
}
KV_DTYPES = tuple(_ITEM_BYTES)
"""Every dtype a cache may be stored in."""


@dataclass(frozen=True)
class KVSpec:
    """Cache needs of one layer. Layers with equal specs share a block table (a KV group)."""

    kind: KVKind
    num_kv_heads: int
    head_dim: int
    dtype: str
    window: int | None = None  # tokens visible to a query, itself included; only for "sliding"

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of one token in one layer."""
        return 2 * self.num_kv_heads * self.head_dim * _ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class KVGroup:
    """Layers that share one block table per request."""

    spec: KVSpec
    layers: tuple[int, ...]
    extra_bytes: int = 0  # of one token in one layer, beside its numbers: scales, padding

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token over all layers of the group."""
        return (self.spec.bytes_per_token + self.extra_bytes) * len(self.layers)

    def bytes_per_block(self, block_size: int) -> int:
        """Bytes of one block over all layers of the group."""
        return self.bytes_per_token * block_size


def group_layers(
    specs: Sequence[KVSpec], extra_bytes: Callable[[KVSpec], int] = lambda _spec: 0
) -> tuple[KVGroup, ...]:
    """Group layers by equal spec, in order of first appearance; see KVGroup for the bytes."""
    layers_by_spec: dict[KVSpec, list[int]] = {}
    for layer, spec in enumerate(specs):
        layers_by_spec.setdefault(spec, []).append(layer)
    return tuple(
        KVGroup(spec, tuple(layers), extra_bytes(spec)) for spec, layers in layers_by_spec.items()
    )
