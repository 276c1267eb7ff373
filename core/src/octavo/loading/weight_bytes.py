"""How much memory a model's weights will take on a device, from names and shapes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from octavo.loading.dtypes import numpy_dtype
from octavo.loading.gguf_quants import QUANT_TYPES
from octavo.loading.named_tensors import NamedTensors, ShapedTensors
from octavo.loading.packing import Packing, is_fine
from octavo.loading.tensors import ShapelessSource, TensorSource

if TYPE_CHECKING:
    from octavo.models.base import Model
    from octavo.splits import Split

__all__ = ["weight_bytes"]

_TYPES = {quant.dtype: quant for quant in QUANT_TYPES.values()}


def weight_bytes(
    model: Model,
    source: TensorSource | ShapelessSource,
    packing: Packing,
    dtype: str,
    num_shards: int = 1,
) -> int:
    """Bytes of a model's weights: packed ones as they are packed, the others in ``dtype``.

    Where several devices share them, of those that one has.
    """
    counter = _Counter(source, packing, dtype, num_shards)
    model.load(counter)
    return counter.num_bytes


class _Counter:
    """A WeightLoader that adds up sizes, and loads nothing."""

    def __init__(
        self,
        source: TensorSource | ShapelessSource,
        packing: Packing,
        dtype: str,
        num_shards: int,
    ) -> None:
        self._tensors = (
            ShapedTensors(source) if isinstance(source, ShapelessSource) else NamedTensors(source)
        )
        self._packing, self._item_bytes = packing, numpy_dtype(dtype).itemsize
        self._num_shards = num_shards
        self.num_bytes = 0

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds the tensor."""
        return self._tensors.has(name)

    def tensors(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """All of them, none packed."""
        for shape in shapes.values():
            self._add(shape, None)

    def vector(
        self,
        name: str,  # noqa: ARG002
        size: int,
        *,
        offset: float = 0.0,  # noqa: ARG002
        split: Split | None = None,
    ) -> Any:
        """A vector, never packed."""
        self._add((self._share(size, split),), None)

    def embedding(self, name: str, shape: tuple[int, int]) -> Any:
        """A table, never packed; what ``tied_linear`` needs to know of it is handed back."""
        self._add(shape, None)
        return name, shape

    def tied_linear(self, embedding: Any) -> Any:
        """A second copy of the table where it is packed."""
        name, shape = embedding
        scheme = self._scheme([name], [shape], fine=True)
        if scheme is not None:
            self._add(shape, scheme)

    def linear(
        self,
        *names: str,
        in_features: int,
        out_features: Sequence[int],
        bias: bool = False,
        transposed: bool = False,
        split: Split | None = None,
    ) -> Any:
        """Stacked weights."""
        divides_rows = split is not None and split.axis == "out"
        num_rows = self._share(sum(out_features), split if divides_rows else None)
        shape = (num_rows, self._share(in_features, None if divides_rows else split))
        shapes = [(size, in_features) for size in out_features]
        weights = [] if transposed else [f"{name}.weight" for name in names]
        self._add(shape, self._scheme(weights, shapes, fine=is_fine(names)))
        if bias:
            self._add(shape[:1], None)

    def linears(
        self,
        *names: str,
        in_features: int,
        out_features: Sequence[int],
        bias: bool = False,
        split: Split | None = None,
    ) -> Any:
        """Stacked weights, or each by itself."""
        stored = [
            self._tensors.dtype(f"{name}.weight", (size, in_features))
            for name, size in zip(names, out_features, strict=True)
        ]
        for group in self._packing.groups(names, stored, in_features):
            sizes = out_features[group]
            own = split and split.within(sum(out_features[: group.start or 0]), sum(sizes))
            self.linear(
                *names[group], in_features=in_features, out_features=sizes, bias=bias, split=own
            )

    def _share(self, size: int, split: Split | None) -> int:
        return size if split is None else split.shard_size(self._num_shards)

    def _scheme(
        self, names: Sequence[str], shapes: Sequence[tuple[int, int]], *, fine: bool
    ) -> str | None:
        stored = [self._tensors.dtype(*each) for each in zip(names, shapes, strict=False)]
        kept = self._packing.kept(stored) if stored else None
        return kept or self._packing.made(shapes[0][1], is_fine=fine)

    def _add(self, shape: tuple[int, ...], scheme: str | None) -> None:
        count = math.prod(shape)
        if scheme is None:
            self.num_bytes += count * self._item_bytes
        else:
            quant = _TYPES[scheme]
            self.num_bytes += count // quant.block_size * quant.block_bytes
