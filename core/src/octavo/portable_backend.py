"""The members of a backend that are alike over every array namespace, to start from.

As with ``PortableOps``: a backend subclasses it, is correct at once, and overrides what it can do
better. What no namespace can know stays with the backend: ``caps``, ``memory``, ``put``, ``get``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo.errors import BackendError
from octavo.loading.dtypes import numpy_dtype
from octavo.loading.tensors import QuantizedTensor
from octavo.ops.arrays import set_at
from octavo.ops.attention import make_plans
from octavo.ops.storage import PortableCache, PortableLinear
from octavo.step import map_arrays

if TYPE_CHECKING:
    from octavo.backend import Capabilities, MemoryInfo
    from octavo.batch import StepBatch
    from octavo.kv import KVSpec
    from octavo.ops.arrays import Array
    from octavo.ops.portable import PortableOps

__all__ = ["PortableBackend"]

Int32 = NDArray[np.int32]


class PortableBackend(ABC):
    """An ``octavo.api.Backend`` over ``ops``, with caches and weights as ``PortableOps`` has them.

    Swap space is NumPy's, so ``caps.host_swap`` may be claimed as it is.
    """

    caps: Capabilities

    def __init__(self, ops: PortableOps) -> None:
        self.ops = ops

    @abstractmethod
    def memory(self) -> MemoryInfo:
        """Device memory, now."""

    @abstractmethod
    def put(self, array: NDArray[Any], dtype: str | None = None) -> Array:
        """Host NumPy to device, converted to ``dtype`` where given; may share memory."""

    @abstractmethod
    def get(self, array: Array) -> NDArray[Any]:
        """Device to host NumPy; waits for the device."""

    def put_linear(
        self,
        weight: NDArray[Any] | QuantizedTensor | Array,
        bias: NDArray[Any] | None,
        dtype: str,
    ) -> PortableLinear:
        """The weight as checkpoints store it; one that ``put`` made is shared."""
        if isinstance(weight, QuantizedTensor):
            raise BackendError(
                f"PortableBackend was handed a weight packed as {weight.scheme}, which "
                "caps.quantization claims; override put_linear, or claim no packed scheme."
            )
        placed = self.put(weight, dtype) if isinstance(weight, np.ndarray) else weight
        return PortableLinear(placed, None if bias is None else self.put(bias, dtype))

    def make_kv(
        self, spec: KVSpec, num_blocks: int, block_size: int, *, on_host: bool = False
    ) -> PortableCache:
        """Zeros; on the host they are NumPy arrays."""
        block_shape = (block_size, spec.num_kv_heads, spec.head_dim)
        dtype = numpy_dtype(spec.dtype)
        if on_host:
            return PortableCache(*(np.zeros((num_blocks, *block_shape), dtype) for _ in "kv"))
        if self.memory().shared_with_host:
            # Where ``put`` shares memory, zeros that nobody has touched take neither time nor room.
            return PortableCache(
                *(self.put(np.zeros((num_blocks, *block_shape), dtype)) for _ in "kv")
            )
        # Repeated on the device, where a whole cache of zeros need not be sent.
        block, index = self.put(np.zeros((1, *block_shape), dtype)), self.put(_zeros(num_blocks))
        return PortableCache(*(self.ops.xp.take(block, index, axis=0) for _ in "kv"))

    def copy_blocks(self, src: PortableCache, dst: PortableCache, pairs: Int32) -> PortableCache:
        """Gather, move between host and device where they differ, scatter."""
        if not len(pairs):
            return dst
        from_blocks, to_blocks = _padded(pairs).T
        if isinstance(src.k, np.ndarray):
            rows = map_arrays(src, lambda stored: self.put(stored[from_blocks]))
        else:
            index = self.put(from_blocks)
            rows = map_arrays(src, lambda stored: self.ops.xp.take(stored, index, axis=0))
        if not isinstance(dst.k, np.ndarray):
            return self._write_blocks(rows, dst, self.put(to_blocks))
        dst.k[to_blocks], dst.v[to_blocks] = self.get(rows.k), self.get(rows.v)
        return dst

    @cached_property
    def _write_blocks(self) -> Callable[..., PortableCache]:
        """``write(rows, cache, blocks)``, compiled as a step is: its second argument is dead."""
        xp = self.ops.xp

        def write(rows: PortableCache, cache: PortableCache, blocks: Array) -> PortableCache:
            return PortableCache(
                k=set_at(xp, cache.k, blocks, rows.k, copy=False),
                v=set_at(xp, cache.v, blocks, rows.v, copy=False),
            )

        return self.compile(write)

    def plan(self, batch: StepBatch, block_size: int) -> Sequence[Any]:  # noqa: ARG002
        """What the portable attention reads."""
        return make_plans(batch, self.put)

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step as it is."""
        return step

    def close(self) -> None:  # noqa: B027
        """Nothing to release."""


def _zeros(size: int) -> Int32:
    return np.zeros(size, np.int32)


def _padded(pairs: Int32) -> Int32:
    """The last pair repeated up to a power of two, so that few shapes occur; copies stay the same.

    Repeating is safe because no block is both read and written (see ``Backend.copy_blocks``).
    """
    num_pairs = 1 << max(len(pairs) - 1, 0).bit_length()
    return np.pad(pairs, ((0, num_pairs - len(pairs)), (0, 0)), mode="edge")
