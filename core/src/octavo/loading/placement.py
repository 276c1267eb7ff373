"""Puts weights on the device, or each device's share of them where several have one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from octavo.loading.gguf_quants import group_size
from octavo.loading.tensors import QuantizedTensor

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.ops.protocol import Array, LinearWeight
    from octavo.splits import Split

__all__ = ["Placement"]


@dataclass(frozen=True)
class Placement:
    """A backend and the number of devices; where it is not 1, it has what ``WeightShards`` has.

    Rows are handed over in the order of the devices that get them, so that each has an equal
    division. ``split`` None is for what all have, and for what one has alone.
    """

    backend: Backend
    num_shards: int = 1

    def vector(self, vector: NDArray[Any], dtype: str | None, split: Split | None) -> Array:
        """A 1-D weight."""
        if split is None or self.num_shards == 1:
            return self.backend.put(vector, dtype)
        shards: Any = self.backend
        return cast("Array", shards.put_vector_shards(self._in_order(vector, split), dtype))

    def linear(
        self,
        weight: NDArray[Any] | QuantizedTensor | Array,
        bias: NDArray[Any] | None,
        dtype: str,
        split: Split | None,
    ) -> LinearWeight:
        """A weight [out_features, in_features] and its bias."""
        if split is None or self.num_shards == 1:
            return self.backend.put_linear(weight, bias, dtype)
        if split.axis == "out":
            bias = None if bias is None else self._in_order(bias, split)
            if isinstance(weight, QuantizedTensor):
                rows = self._in_order(weight.data, split)
                weight = QuantizedTensor(weight.scheme, (len(rows), weight.shape[1]), rows)
            else:
                weight = self._in_order(cast("NDArray[Any]", weight), split)
        shards: Any = self.backend
        return shards.put_linear_shards(weight, bias, dtype, split.axis)

    def keeps_packing(self, weight: Any, split: Split | None) -> bool:
        """Whether a weight that is packed can stay so: devices that get columns get whole groups.

        Also for what is not packed.
        """
        if not isinstance(weight, QuantizedTensor) or split is None or split.axis == "out":
            return True
        num_groups = weight.shape[1] // group_size(weight.scheme)
        return num_groups % self.num_shards == 0

    def _in_order(self, array: NDArray[Any], split: Split) -> NDArray[Any]:
        pieces = [array[piece] for piece in split.order(self.num_shards)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
