"""From a checkpoint's tensors to a backend's weights, checked and one tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo.loading.dtypes import numpy_dtype
from octavo.loading.named_tensors import NamedTensors, ShapedTensors
from octavo.loading.tensors import QuantizedTensor, ShapelessSource, TensorSource

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.ops.protocol import Array, LinearWeight

__all__ = ["CheckpointWeightLoader"]


class CheckpointWeightLoader:
    """``octavo.models.base.WeightLoader`` over a tensor source and a backend.

    Reads one tensor at a time and straight to its place, so that the host needs little more than
    the largest weight.
    """

    def __init__(
        self,
        source: TensorSource | ShapelessSource,
        backend: Backend,
        dtype: str,
        *,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        """``dtype`` is the compute dtype, and ``on_bytes`` hears of each weight's bytes in it.

        Over a whole model they sum up to ``num_parameters`` times the dtype's size.
        """
        self._tensors = (
            ShapedTensors(source) if isinstance(source, ShapelessSource) else NamedTensors(source)
        )
        self._backend = backend
        self._dtype = dtype
        self._on_bytes = on_bytes
        self._is_tied = False

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds the tensor."""
        return self._tensors.has(name)

    def unused(self) -> list[str]:
        """Tensors of the checkpoint that nobody has asked for and that carry information."""
        names = self._tensors.unused()
        return [name for name in names if not (self._is_tied and name.endswith("lm_head.weight"))]

    def vector(self, name: str, size: int, *, offset: float = 0.0) -> Array:
        """A 1-D weight; ``offset`` is added in float32, before rounding to the compute dtype."""
        if offset == 0.0:
            return self._backend.put(self._read(name, (size,)))
        shifted = self._tensors.read(name, (size,), "float32") + np.float32(offset)
        self._count((size,))
        return self._backend.put(shifted, self._dtype)

    def embedding(self, name: str, shape: tuple[int, int]) -> Array:
        """A 2-D table in the compute dtype."""
        return self._backend.put(self._read(name, shape))

    def tied_linear(self, embedding: Array) -> LinearWeight:
        """The embedding table as an output projection, shared where the backend can."""
        self._is_tied = True
        return self._backend.put_linear(embedding, None, self._dtype)

    def linear(
        self,
        *names: str,
        in_features: int,
        out_features: Sequence[int],
        bias: bool = False,
        transposed: bool = False,
    ) -> LinearWeight:
        """Weights stacked along the output axis, packed where the backend takes the packing."""
        weight_names = [f"{name}.weight" for name in names]
        shapes = [(size, in_features) for size in out_features]
        weight: NDArray[Any] | QuantizedTensor | None
        if transposed:
            weight = self._transposed(weight_names, shapes)
        else:
            weight = self._packed(weight_names, shapes)
            if weight is None:
                weight = self._stacked(weight_names, shapes)
        bias_row = None
        if bias:
            sizes = [(size,) for size in out_features]
            bias_row = self._stacked([f"{name}.bias" for name in names], sizes)
        return self._backend.put_linear(weight, bias_row, self._dtype)

    def _stacked(self, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> NDArray[Any]:
        """Tensors one below the other: several are read into place, one alone is not copied."""
        if len(names) == 1:
            return self._read(names[0], shapes[0])
        num_rows = sum(shape[0] for shape in shapes)
        stacked = np.empty((num_rows, *shapes[0][1:]), numpy_dtype(self._dtype))
        start = 0
        for name, shape in zip(names, shapes, strict=True):
            self._read(name, shape, stacked[start : start + shape[0]])
            start += shape[0]
        return stacked

    def _transposed(self, names: Sequence[str], shapes: Sequence[tuple[int, int]]) -> NDArray[Any]:
        """The same for weights stored [in_features, out_features]."""
        parts = [self._read(name, shape[::-1]) for name, shape in zip(names, shapes, strict=True)]
        return parts[0].T if len(parts) == 1 else np.concatenate(parts, axis=1).T

    def _packed(
        self, names: Sequence[str], shapes: Sequence[tuple[int, int]]
    ) -> QuantizedTensor | None:
        """The weights as the checkpoint packs them, if all have one scheme the backend takes."""
        schemes = self._backend.caps.quantization
        if not schemes:
            return None
        parts = []
        for name, shape in zip(names, shapes, strict=True):
            part = self._tensors.quantized(name, shape)
            if part is None or part.scheme not in schemes:
                return None
            parts.append(part)
        scheme = parts[0].scheme
        if any(part.scheme != scheme for part in parts):
            return None
        shape = (sum(part.shape[0] for part in parts), parts[0].shape[1])
        self._count(shape)
        rows = parts[0].data if len(parts) == 1 else np.concatenate([part.data for part in parts])
        return QuantizedTensor(scheme, shape, rows)

    def _read(
        self, name: str, shape: tuple[int, ...], out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        array = self._tensors.read(name, shape, self._dtype, out)
        self._count(shape)
        return array

    def _count(self, shape: tuple[int, ...]) -> None:
        if self._on_bytes is not None:
            self._on_bytes(math.prod(shape) * numpy_dtype(self._dtype).itemsize)
