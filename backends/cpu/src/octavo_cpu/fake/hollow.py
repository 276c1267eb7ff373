"""Arrays without contents: a shape and a dtype, and all that a model may do with an array."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["HollowArray", "HollowLinear", "HollowSample"]


@dataclass(frozen=True, eq=False)
class HollowArray:
    """``octavo.api.Array`` without arithmetic.

    ``host`` is the array that was put, so that it can be got again; what is computed has none.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    host: NDArray[Any] | None = None

    @property
    def nbytes(self) -> int:
        """What a device would need for it."""
        return math.prod(self.shape) * self.dtype.itemsize

    def numpy(self) -> NDArray[Any]:
        """What was put, in the array's dtype; zeros for what is computed."""
        if self.host is None:
            return np.zeros(self.shape, self.dtype)
        return np.array(self.host, self.dtype)

    def like(self, *shape: int) -> HollowArray:
        """Another array of the same dtype."""
        return HollowArray(shape, self.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> HollowArray:
        return self.like(*np.broadcast_to(np.int8(0), self.shape)[key].shape)

    def _with(self, other: Any) -> HollowArray:
        return self.like(*np.broadcast_shapes(self.shape, getattr(other, "shape", ())))

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _with

    def reshape(self, *shape: int) -> HollowArray:
        """The same number of elements in another shape; one size may be -1."""
        return self.like(*np.broadcast_to(np.int8(0), self.shape).reshape(*shape).shape)


@dataclass(frozen=True)
class HollowLinear:
    """A weight [out_features, in_features], of which only this is kept."""

    out_features: int


@dataclass(frozen=True)
class HollowSample:
    """What ``sample`` knows: how many tokens there are. The step chooses among them."""

    vocab_size: int
