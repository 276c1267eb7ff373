"""A checkpoint's tensors by name, whatever file format holds them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["QuantizedTensor", "ShapelessSource", "TensorSource"]


@dataclass(frozen=True)
class QuantizedTensor:
    """A weight as a checkpoint packs it. ``scheme`` is e.g. "gguf:Q4_1"; shape is the logical one.

    ``data`` holds the packed rows: uint8[out_features, bytes_per_row].
    """

    scheme: str
    shape: tuple[int, int]
    data: NDArray[np.uint8]


class TensorSource(Protocol):
    """Named tensors of one checkpoint (one file or many shards), under their Hugging Face names."""

    def names(self) -> Collection[str]:
        """All tensors, as Hugging Face names them."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Logical shape, outermost first, as Hugging Face stores it."""
        ...

    def dtype(self, name: str) -> str:
        """Storage dtype by name: "float32", "bfloat16", "gguf:Q4_1", and so on."""
        ...

    def read(self, name: str, dtype: str, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """The tensor, dequantised or converted to ``dtype``; written into ``out`` where given.

        Without ``out`` and with nothing to convert, the result may be a read-only view of the file.
        """
        ...

    def quantized(self, name: str) -> QuantizedTensor | None:
        """The packed form of a quantised 2-D tensor, or None."""
        ...

    def release(self, name: str) -> None:
        """Hand back the memory that the file's pages of a tensor take; views of it stay valid."""
        ...

    def close(self) -> None:
        """Let go of the files; arrays returned as views of them stay valid."""
        ...


@runtime_checkable
class ShapelessSource(Protocol):
    """A source that makes up each tensor in the shape it is asked for (``--load-format dummy``).

    ``Checkpoint.tensors`` is a TensorSource or one of these. A WeightLoader asks once,
    ``isinstance(source, ShapelessSource)``, and then reads with the shape that the model expects
    instead of comparing ``source.shape(name)`` with it. There is never a packed form.
    """

    def has(self, name: str) -> bool:
        """True, save for biases and for the output projection of a model with tied embeddings."""
        ...

    def read_shaped(
        self, name: str, shape: tuple[int, ...], dtype: str, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """The tensor in this shape and dtype, the same for one seed, name and shape every time."""
        ...

    def close(self) -> None:
        """Let go of the files; arrays returned as views of them stay valid."""
        ...
