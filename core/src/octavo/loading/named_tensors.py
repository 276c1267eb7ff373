"""A checkpoint's tensors by the name and shape a model expects, refused where they differ."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from octavo.errors import ModelLoadError
from octavo.loading.tensors import QuantizedTensor, ShapelessSource, TensorSource

__all__ = ["NamedTensors", "ShapedTensors"]

_DERIVED = re.compile(r"(^|\.)(rotary_emb\.inv_freq|attn\.(masked_)?bias)$")
"""Buffers that old checkpoints store although they follow from the config."""


_FLOATS = ("float32", "float16", "bfloat16")


class NamedTensors:
    """Tensors of a real checkpoint. Names are found with or without their base model's prefix."""

    def __init__(self, source: TensorSource) -> None:
        self._source = source
        self._names = frozenset(source.names())
        self._used: set[str] = set()

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds the tensor."""
        return any(alias in self._names for alias in _aliases(name))

    def read(
        self, name: str, shape: tuple[int, ...], dtype: str, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """The tensor in ``dtype``; ModelLoadError if it is missing or of another shape."""
        return self._source.read(self._find(name, shape), dtype, out)

    def as_stored(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """What ``read`` gives in the tensor's own dtype: a view of the file where that is one."""
        stored_name = self._find(name, shape)
        return self._source.read(stored_name, self._source.dtype(stored_name))

    def expect(self, name: str, shape: tuple[int, ...]) -> None:
        """What ``read`` checks, without reading."""
        self._find(name, shape)

    def quantized(self, name: str, shape: tuple[int, int]) -> QuantizedTensor | None:
        """The tensor as it is packed, or None where it is not."""
        return self._source.quantized(self._find(name, shape))

    def release(self, name: str) -> None:
        """Hand back the pages of the file that the tensor takes: a backend has its own copy now."""
        for alias in _aliases(name):
            if alias in self._names:
                self._source.release(alias)
                return

    def dtype(self, name: str, shape: tuple[int, ...]) -> str | None:
        """How the tensor is stored."""
        return self._source.dtype(self._find(name, shape))

    def everything(self, dtype: str, shapes: Any) -> dict[str, NDArray[Any]]:  # noqa: ARG002
        """Every tensor of floats under its own name, packed ones in ``dtype``; all are used now."""
        tensors = {}
        for name in self._names:
            stored = self._source.dtype(name)
            if ":" in stored or stored in _FLOATS:
                tensors[name] = self._source.read(name, dtype if ":" in stored else stored)
        self._used.update(self._names)
        return tensors

    def leave(self, names: Iterable[str]) -> None:
        """These were not used after all."""
        self._used.difference_update(names)

    def unused(self) -> list[str]:
        """Names that were neither read nor are buffers without information of their own."""
        return sorted(name for name in self._names - self._used if not _DERIVED.search(name))

    def _find(self, name: str, shape: tuple[int, ...]) -> str:
        """The stored name of what the model calls ``name``, with its shape checked; now used."""
        stored_name = next((alias for alias in _aliases(name) if alias in self._names), None)
        if stored_name is None:
            raise self._missing(name)
        stored_shape = tuple(self._source.shape(stored_name))
        if stored_shape != shape:
            raise ModelLoadError(
                f"Tensor {stored_name!r} has shape {list(stored_shape)} in the checkpoint, but its "
                f"config asks for {list(shape)}; the two belong to different models."
            )
        self._used.add(stored_name)
        return stored_name

    def _missing(self, name: str) -> ModelLoadError:
        close = difflib.get_close_matches(name, self._names, n=3)
        nearest = f" The closest names there: {', '.join(close)}." if close else ""
        return ModelLoadError(
            f"The checkpoint has no tensor {name!r}.{nearest} It is incomplete, or its config "
            "belongs to another model."
        )


class ShapedTensors:
    """The same over a source that makes tensors up, in whatever shape the model expects."""

    def __init__(self, source: ShapelessSource) -> None:
        self._source = source

    def has(self, name: str) -> bool:
        """Whether the source would make the tensor up."""
        return self._source.has(name)

    def read(
        self, name: str, shape: tuple[int, ...], dtype: str, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """The tensor in this shape and ``dtype``."""
        return self._source.read_shaped(name, shape, dtype, out)

    def expect(self, name: str, shape: tuple[int, ...]) -> None:
        """Nothing: every tensor is there, in whatever shape."""

    def quantized(self, name: str, shape: tuple[int, int]) -> None:
        """Nothing: made-up tensors are not packed."""

    def release(self, name: str) -> None:
        """Nothing: made-up tensors are in no file."""

    def dtype(self, name: str, shape: tuple[int, ...]) -> str | None:
        """Nothing: made-up tensors are stored nowhere."""

    def everything(
        self, dtype: str, shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, NDArray[Any]]:
        """Tensors of these names and shapes, made up in ``dtype``."""
        return {name: self._source.read_shaped(name, each, dtype) for name, each in shapes.items()}

    def leave(self, names: Iterable[str]) -> None:
        """Nothing: made-up tensors may stay unused."""

    def unused(self) -> list[str]:
        """Nothing: there is no list of names."""
        return []


def _aliases(name: str) -> Iterator[str]:
    """Names a tensor may be stored under.

    As the language model has it, as its base model does, or as the language part of a multimodal
    model does, in transformers' older and newer layout.
    """
    yield name
    for prefix in ("model.", "transformer."):
        if name.startswith(prefix):
            yield name.removeprefix(prefix)
    yield f"language_model.{name}"
    yield f"model.language_model.{name.removeprefix('model.')}"
