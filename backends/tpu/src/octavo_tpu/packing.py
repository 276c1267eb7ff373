"""Many small arrays as one: what it costs to run a program grows with the number of its arguments.

A step has some twenty small arrays from the host, and a model has two norms to a layer. Each is an
argument to look at, to send and to count references of, and none of that is in the processor's
caches after a step that has read all weights. So they travel in a buffer, and the program cuts them
out again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from numpy.typing import NDArray

__all__ = ["Packed", "Packing", "pack_inputs", "pack_weights"]

Array: TypeAlias = Any  # a jax.Array, or what stands for one while a program is traced
_WORD = np.dtype(np.int32)
_SMALL_BYTES = 1 << 16
"""Weights up to this size are packed: norms and biases."""


class Packed(NamedTuple):
    """The arguments of a program."""

    buffer: Array | None  # [words], or of a weight's dtype
    others: list[Array]


class _Place(NamedTuple):
    start: int  # in the buffer; -1 for an array of its own
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


@dataclass(frozen=True)
class Packing:
    """Where a tree's arrays lie; equal ones have equal programs."""

    structure: Any  # jax.tree_util.PyTreeDef
    places: tuple[_Place, ...]

    def unpack(self, packed: Packed) -> Any:
        """The tree, within the program."""
        others = iter(packed.others)
        return jax.tree.unflatten(
            self.structure,
            [
                next(others) if place.start < 0 else _cut(packed.buffer, place)
                for place in self.places
            ],
        )

    def shapes(self) -> list[str]:
        """Of the arrays, for a message."""
        return [f"{place.dtype}{list(place.shape)}" for place in self.places]


def pack_inputs(tree: Any) -> tuple[Packing, Packed]:
    """Host arrays of 32-bit numbers in one buffer, which is a copy; all else as it is."""
    leaves, structure = jax.tree.flatten(tree)
    are_packed = [isinstance(leaf, np.ndarray) and leaf.dtype.itemsize == 4 for leaf in leaves]
    packing, parts, others = _divided(structure, leaves, are_packed)
    if not parts:
        return packing, Packed(None, others)
    return packing, Packed(np.concatenate([_words(part) for part in parts]), others)


def pack_weights(tree: Any, device: jax.Device | None) -> tuple[Packing, Packed]:
    """Small arrays of the dtype that most of them have, in one buffer on the device.

    Without a device all stay where they are.
    """
    leaves, structure = jax.tree.flatten(tree)
    are_small = [device is not None and leaf.nbytes <= _SMALL_BYTES for leaf in leaves]
    small = [leaf.dtype for leaf, is_small in zip(leaves, are_small, strict=True) if is_small]
    usual = max(dict.fromkeys(small), key=small.count, default=None)
    are_packed = [
        is_small and leaf.dtype == usual for leaf, is_small in zip(leaves, are_small, strict=True)
    ]
    packing, parts, others = _divided(structure, leaves, are_packed)
    if not parts:
        return packing, Packed(None, others)
    joined = np.concatenate([np.asarray(part).reshape(-1) for part in parts])
    return packing, Packed(jax.device_put(joined, device), others)


def _divided(
    structure: Any, leaves: Sequence[Array], are_packed: Sequence[bool]
) -> tuple[Packing, list[Array], list[Array]]:
    places: list[_Place] = []
    parts: list[Array] = []
    others: list[Array] = []
    start = 0
    for leaf, is_packed in zip(leaves, are_packed, strict=True):
        places.append(_Place(start if is_packed else -1, leaf.shape, leaf.dtype))
        (parts if is_packed else others).append(leaf)
        start += math.prod(leaf.shape) if is_packed else 0
    return Packing(structure, tuple(places)), parts, others


def _words(array: NDArray[Any]) -> NDArray[np.int32]:
    return np.ascontiguousarray(array).reshape(-1).view(_WORD)


def _cut(buffer: Array, place: _Place) -> Array:
    size = math.prod(place.shape)
    part = jax.lax.slice(buffer, (place.start,), (place.start + size,)).reshape(place.shape)
    if part.dtype == place.dtype:
        return part
    return jax.lax.bitcast_convert_type(part, place.dtype)
