"""Which tensors a model reads, found by letting it load from a loader that only takes notes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from octavo.models.base import Model
    from octavo.splits import Split

__all__ = ["ShapeRecorder", "count_parameters", "tensor_shapes"]


class ShapeRecorder:
    """A WeightLoader that writes down names and shapes, and loads nothing."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.splits: dict[str, tuple[int, Split]] = {}
        """Axis as stored and how it divides, of the tensors that do."""

    def has(self, name: str) -> bool:
        """Whether the model has asked for ``name`` so far."""
        return name in self.shapes

    def vector(
        self,
        name: str,
        size: int,
        *,
        offset: float = 0.0,  # noqa: ARG002
        split: Split | None = None,
    ) -> Any:
        """Note a vector."""
        self.shapes[name] = (size,)
        if split is not None:
            self.splits[name] = (0, split)

    def embedding(self, name: str, shape: tuple[int, int]) -> Any:
        """Note a table."""
        self.shapes[name] = shape

    def linear(
        self,
        *names: str,
        in_features: int,
        out_features: Sequence[int],
        bias: bool = False,
        transposed: bool = False,
        split: Split | None = None,
    ) -> Any:
        """Note each name's weight and bias, in the checkpoint's orientation."""
        start = 0
        for name, size in zip(names, out_features, strict=True):
            shape = (size, in_features)
            self.shapes[f"{name}.weight"] = shape[::-1] if transposed else shape
            if bias:
                self.shapes[f"{name}.bias"] = (size,)
            if split is not None:
                divides_rows = split.axis == "out"
                own = split.within(start, size) if divides_rows else split
                self.splits[f"{name}.weight"] = (int(divides_rows == transposed), own)
                if bias and divides_rows:
                    self.splits[f"{name}.bias"] = (0, own)
            start += size

    def linears(
        self,
        *names: str,
        in_features: int,
        out_features: Sequence[int],
        bias: bool = False,
        split: Split | None = None,
    ) -> Any:
        """The same."""
        self.linear(
            *names, in_features=in_features, out_features=out_features, bias=bias, split=split
        )

    def tied_linear(self, embedding: Any) -> Any:
        """Nothing to note: the embedding is counted already."""


def tensor_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """The tensors ``model`` reads from a checkpoint, by Hugging Face name."""
    recorder = ShapeRecorder()
    model.load(recorder)
    return recorder.shapes


def count_parameters(model: Model) -> int:
    """Parameters of a model, from its configuration alone; tied ones count once."""
    return sum(math.prod(shape) for shape in tensor_shapes(model).values())
