"""Reading a sequence's keys or values from the cache: a view, or a gathered copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from octavo_cpu.plan import KeyRange

__all__ = ["KeyReader", "is_view"]

Float32 = NDArray[np.float32]


class KeyReader:
    """Reads key ranges one at a time through scratch space of its own; one thread's property.

    The scratch is small enough to stay in the core's cache, so that a gathered copy costs about
    what reading the keys from memory costs anyway.
    """

    def __init__(self, max_blocks: int, block_shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._stored = np.empty((max_blocks, *block_shape), dtype)
        is_float32 = dtype == np.float32
        self._blocks = self._stored if is_float32 else np.empty(self._stored.shape, np.float32)

    def read(self, stored: NDArray[Any], keys: KeyRange) -> Float32:
        """[keys, kv_heads, head_dim]; holds until the next read."""
        if is_view(stored, keys):
            return stored.reshape(-1, *stored.shape[2:])[keys.slots]
        self.gather(stored, keys)
        return self.gathered(keys)

    def gather(self, stored: NDArray[Any], keys: KeyRange) -> None:
        """Copy the blocks of a range into the scratch space, as float32."""
        num_blocks = len(keys.blocks)
        target = self._stored[:num_blocks]
        # "clip" lets NumPy write straight into out; the ids are valid.
        np.take(stored, keys.blocks, axis=0, out=target, mode="clip")
        if self._stored is not self._blocks:
            self._blocks[:num_blocks] = target

    def gathered(self, keys: KeyRange) -> Float32:
        """Where ``gather`` puts a range: [keys, kv_heads, head_dim]."""
        slots = self._blocks.reshape(-1, *self._blocks.shape[2:])
        return slots[keys.offset : keys.offset + keys.num_keys]


def is_view(stored: NDArray[Any], keys: KeyRange) -> bool:
    """Whether a range needs no copy: a run of blocks, already in float32."""
    return keys.slots is not None and stored.dtype == np.float32
