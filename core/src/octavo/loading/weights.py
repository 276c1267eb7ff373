"""From a checkpoint's tensors to a backend's weights, checked and one tensor at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo.loading.dtypes import numpy_dtype
from octavo.loading.named_tensors import NamedTensors, ShapedTensors
from octavo.loading.packing import Packing, is_fine
from octavo.loading.placement import Placement
from octavo.loading.tensors import QuantizedTensor, ShapelessSource, TensorSource

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.ops.protocol import Array, LinearWeight
    from octavo.splits import Split

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
        packing: Packing | None = None,
        importance: Mapping[str, NDArray[np.float32]] | None = None,
        on_bytes: Callable[[int], None] | None = None,
        num_shards: int = 1,
    ) -> None:
        """``dtype`` is the compute dtype, and ``on_bytes`` hears of each weight's bytes in it.

        Over a whole model they sum up to ``num_parameters`` times the dtype's size. ``packing``
        says which weights are packed; without it, those that the backend takes as they are.
        ``importance`` is that of ``measure_importance``. Where ``num_shards`` devices share the
        model, the backend has the members of ``WeightShards``.
        """
        self._tensors = (
            ShapedTensors(source) if isinstance(source, ShapelessSource) else NamedTensors(source)
        )
        self._backend = backend
        self._dtype = dtype
        self._packing = packing or Packing(backend.caps.quantization)
        self._importance = importance or {}
        self._on_bytes = on_bytes
        self._placement = Placement(backend, num_shards)
        self._is_tied = False
        self.unpacked: Counter[str] = Counter()
        """Scheme → matrices that the checkpoint packs in it, and that had to be unpacked."""
        self._embeddings: list[tuple[Array, str, tuple[int, int]]] = []

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds the tensor."""
        return self._tensors.has(name)

    def unused(self) -> list[str]:
        """Tensors of the checkpoint that nobody has asked for and that carry information."""
        names = self._tensors.unused()
        return [name for name in names if not (self._is_tied and name.endswith("lm_head.weight"))]

    @property
    def dtype(self) -> str:
        """The compute dtype by name."""
        return self._dtype

    def tensors(self, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, NDArray[Any]]:
        """Every tensor under its own name, on the host; views of the file where they can be."""
        found = self._tensors.everything(self._dtype, shapes)
        for shape in shapes.values():
            self._count(shape)
        return found

    def leave(self, names: Iterable[str]) -> None:
        """Of the names that ``tensors`` gave, these were not used."""
        self._tensors.leave(names)

    def put(self, array: NDArray[Any]) -> Array:
        """An array on the device, as it is."""
        return self._backend.put(array)

    def vector(
        self, name: str, size: int, *, offset: float = 0.0, split: Split | None = None
    ) -> Array:
        """A 1-D weight; ``offset`` is added in float32, before rounding to the compute dtype."""
        self._count((size,))
        dtype = self._dtype if offset == 0.0 else "float32"
        vector = self._read(name, (size,), dtype)
        if offset != 0.0:
            vector = vector + np.float32(offset)
        return self._placement.vector(vector, None if dtype == self._dtype else self._dtype, split)

    def embedding(self, name: str, shape: tuple[int, int]) -> Array:
        """A 2-D table in the compute dtype."""
        self._count(shape)
        table = self._backend.put(self._read(name, shape, self._dtype))
        self._embeddings.append((table, name, shape))
        return table

    def tied_linear(self, embedding: Array) -> LinearWeight:
        """The embedding table as an output projection: packed, or shared where the backend can.

        Packed it is a second copy, but a smaller one, and a step reads all of it.
        """
        self._is_tied = True
        head: QuantizedTensor | Array = embedding
        names = []
        for table, name, shape in self._embeddings:
            if table is embedding:
                head = self._smaller_head(name, shape) or embedding
                names.append(name)
        return self._put_linear(head, None, names)

    def linear(
        self,
        *names: str,
        in_features: int,
        out_features: Sequence[int],
        bias: bool = False,
        transposed: bool = False,
        split: Split | None = None,
    ) -> LinearWeight:
        """Weights stacked along the output axis, packed where the backend takes the packing."""
        weight_names = [f"{name}.weight" for name in names]
        shapes = [(size, in_features) for size in out_features]
        weight: NDArray[Any] | QuantizedTensor | None
        weight = None if transposed else self._packed(weight_names, shapes)
        if weight is None or not self._placement.keeps_packing(weight, split):
            fine = is_fine(names)
            weight = self._floats(weight_names, shapes, fine=fine, transposed=transposed)
            if not self._placement.keeps_packing(weight, split):
                read = self._transposed if transposed else self._stacked
                weight = read(weight_names, shapes, self._dtype)
            stored = [shape[::-1] for shape in shapes] if transposed else shapes
            self._note_unpacked(weight_names, stored)
        bias_row = None
        if bias:
            sizes = [(size,) for size in out_features]
            bias_row = self._stacked([f"{name}.bias" for name in names], sizes, self._dtype)
        self._count((sum(out_features), in_features + bias))
        return self._put_linear(weight, bias_row, weight_names, split)

    def linears(
        self,
        *names: str,
        in_features: int,
        out_features: Sequence[int],
        bias: bool = False,
        split: Split | None = None,
    ) -> tuple[LinearWeight, ...]:
        """One weight of all names where they are packed alike, else one of each."""
        stored = [
            self._tensors.dtype(f"{name}.weight", (size, in_features))
            for name, size in zip(names, out_features, strict=True)
        ]
        return tuple(
            self.linear(
                *names[group],
                in_features=in_features,
                out_features=out_features[group],
                bias=bias,
                split=split
                and split.within(sum(out_features[: group.start or 0]), sum(out_features[group])),
            )
            for group in self._packing.groups(names, stored, in_features)
        )

    def _put_linear(
        self,
        weight: NDArray[Any] | QuantizedTensor | Array,
        bias: NDArray[Any] | None,
        names: Sequence[str],
        split: Split | None = None,
    ) -> LinearWeight:
        """A linear layer on the device; the file's pages that it was made of leave memory.

        Should the backend have kept views of them, they come back when it reads them.
        """
        linear = self._placement.linear(weight, bias, self._dtype, split)
        for name in names:
            self._tensors.release(name)
        return linear

    def _floats(
        self,
        names: Sequence[str],
        shapes: Sequence[tuple[int, int]],
        *,
        fine: bool,
        transposed: bool,
    ) -> NDArray[Any] | QuantizedTensor:
        """The weights unpacked, or quantised here: then from what the checkpoint has, unrounded."""
        is_made = self._packing.made(shapes[0][1], is_fine=fine) is not None
        dtype = "float32" if is_made else self._dtype
        read = self._transposed if transposed else self._stacked
        importance = self._importance.get(names[0])
        weight = read(names, shapes, dtype)
        return self._packing.apply(weight, is_fine=fine, importance=importance)

    def _note_unpacked(self, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> None:
        stored = (self._tensors.dtype(*each) for each in zip(names, shapes, strict=True))
        self.unpacked.update(dtype for dtype in stored if dtype and ":" in dtype)

    def _smaller_head(self, name: str, shape: tuple[int, int]) -> QuantizedTensor | None:
        """An embedding table as the checkpoint packs it or quantised here; None for neither."""
        packed = self._packed([name], [shape])
        if packed is not None or self._packing.made(shape[1], is_fine=True) is None:
            return packed
        weight = self._floats([name], [shape], fine=True, transposed=False)
        return weight if isinstance(weight, QuantizedTensor) else None

    def _stacked(
        self, names: Sequence[str], shapes: Sequence[tuple[int, ...]], dtype: str
    ) -> NDArray[Any]:
        """Tensors one below the other: several are read into place, one alone is not copied."""
        if len(names) == 1:
            return self._read(names[0], shapes[0], dtype)
        num_rows = sum(shape[0] for shape in shapes)
        stacked = np.empty((num_rows, *shapes[0][1:]), numpy_dtype(dtype))
        start = 0
        for name, shape in zip(names, shapes, strict=True):
            self._read(name, shape, dtype, stacked[start : start + shape[0]])
            start += shape[0]
        return stacked

    def _transposed(
        self, names: Sequence[str], shapes: Sequence[tuple[int, int]], dtype: str
    ) -> NDArray[Any]:
        """The same for weights stored [in_features, out_features]."""
        parts = [
            self._read(name, shape[::-1], dtype) for name, shape in zip(names, shapes, strict=True)
        ]
        return parts[0].T if len(parts) == 1 else np.concatenate(parts, axis=1).T

    def _packed(
        self, names: Sequence[str], shapes: Sequence[tuple[int, int]]
    ) -> QuantizedTensor | None:
        """The weights as the checkpoint packs them, if all have one scheme the backend takes."""
        if not self._packing.schemes:
            return None
        parts = [
            self._tensors.quantized(name, shape) for name, shape in zip(names, shapes, strict=True)
        ]
        scheme = self._packing.kept([None if part is None else part.scheme for part in parts])
        if scheme is None:
            return None
        stacked = [part.data for part in parts if part is not None]
        rows = stacked[0] if len(stacked) == 1 else np.concatenate(stacked)
        return QuantizedTensor(scheme, (len(rows), shapes[0][1]), rows)

    def _read(
        self, name: str, shape: tuple[int, ...], dtype: str, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        return self._tensors.read(name, shape, dtype, out)

    def _count(self, shape: tuple[int, ...]) -> None:
        if self._on_bytes is not None:
            self._on_bytes(math.prod(shape) * numpy_dtype(self._dtype).itemsize)
