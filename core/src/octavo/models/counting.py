"""Which tensors a model reads, found by letting it load from a loader that only takes notes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from octavo.models.base import Model

__all__ = ["ShapeRecorder", "count_parameters", "tensor_shapes"]


class ShapeRecorder:
    """A WeightLoader that writes down names and shapes, and loads nothing."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def has(self, name: str) -> bool:
        """Whether the model has asked for ``name`` so far."""
        return name in self.shapes

    def vector(self, name: str, size: int, *, offset: float = 0.0) -> Any:  # noqa: ARG002
        """Note a vector."""
        self.shapes[name] = (size,)

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
    ) -> Any:
        """Note each name's weight and bias, in the checkpoint's orientation."""
        for name, size in zip(names, out_features, strict=True):
            shape = (size, in_features)
            self.shapes[f"{name}.weight"] = shape[::-1] if transposed else shape
            if bias:
                self.shapes[f"{name}.bias"] = (size,)

    def linears(
        self, *names: str, in_features: int, out_features: Sequence[int], bias: bool = False
    ) -> Any:
        """The same."""
        self.linear(*names, in_features=in_features, out_features=out_features, bias=bias)

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
