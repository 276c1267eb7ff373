"""Weights without values, for a device that looks at their shapes only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo.loading.dtypes import numpy_dtype
from octavo.loading.weights import CheckpointWeightLoader

if TYPE_CHECKING:
    from octavo.ops.protocol import Array
    from octavo.splits import Split

__all__ = ["HollowWeightLoader"]


class HollowWeightLoader(CheckpointWeightLoader):
    """Checks names and shapes as if it read the weights; hands over zeros that take no memory.

    A model of any size is loaded at once (``Capabilities.reads_weights`` is False).
    """

    def vector(
        self,
        name: str,
        size: int,
        *,
        offset: float = 0.0,  # noqa: ARG002
        split: Split | None = None,
    ) -> Array:
        """A 1-D weight of the right size."""
        return super().vector(name, size, split=split)

    def _read(
        self, name: str, shape: tuple[int, ...], dtype: str, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        del out  # never given: _stacked, which gives it, is overridden
        self._tensors.expect(name, shape)
        return _hollow(shape, dtype)

    def _stacked(
        self, names: Sequence[str], shapes: Sequence[tuple[int, ...]], dtype: str
    ) -> NDArray[Any]:
        for name, shape in zip(names, shapes, strict=True):
            self._read(name, shape, dtype)
        return _hollow((sum(shape[0] for shape in shapes), *shapes[0][1:]), dtype)

    def _transposed(
        self, names: Sequence[str], shapes: Sequence[tuple[int, int]], dtype: str
    ) -> NDArray[Any]:
        for name, shape in zip(names, shapes, strict=True):
            self._read(name, shape[::-1], dtype)
        return _hollow((sum(shape[0] for shape in shapes), shapes[0][1]), dtype)

    def _packed(self, names: Sequence[str], shapes: Sequence[tuple[int, int]]) -> None:
        """Never: what is packed has a size of its own, and there is nothing to unpack."""


def _hollow(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    return np.broadcast_to(np.zeros((), numpy_dtype(dtype)), shape)
