"""Which weights stay packed, and which are packed while they are loaded."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo.errors import UsageError
from octavo.loading.quantize import BLOCK_SIZE, quantize
from octavo.loading.tensors import QuantizedTensor, ShapelessSource, TensorSource

if TYPE_CHECKING:
    from octavo.config import Quantization

__all__ = ["Packing", "is_fine", "packing_for"]

_SCHEMES: dict[str, str] = {"int8": "gguf:Q8_0", "int4": "gguf:Q4_1"}
_FINE_NAMES = {"lm_head", "v_proj"}
_FINE_SCHEME = _SCHEMES["int8"]


@dataclass(frozen=True)
class Packing:
    """What a backend takes (``schemes``), and what ``--quantization`` asks for."""

    schemes: tuple[str, ...] = ()
    quantization: Quantization | None = None

    @property
    def weighs_columns(self) -> bool:
        """Whether ``apply`` makes use of an importance."""
        return self.quantization == "int4"

    def kept(self, schemes: Sequence[str | None]) -> str | None:
        """The scheme in which stacked weights stay as the checkpoint packs them: that of all parts.

        None where they are unpacked: parts of different schemes would have to become one, and a
        second rounding would lose.
        """
        scheme = schemes[0]
        return scheme if {*schemes} == {scheme} and scheme in self.schemes else None

    def made(self, in_features: int, *, is_fine: bool) -> str | None:
        """The scheme that a weight of floats gets, or None where it stays as it is.

        A fine one (``is_fine``) gets int8 in every mode.
        """
        if self.quantization is None or in_features % BLOCK_SIZE:
            return None
        return _FINE_SCHEME if is_fine else _SCHEMES[self.quantization]

    def apply(
        self,
        weight: NDArray[Any],
        *,
        is_fine: bool,
        importance: NDArray[np.float32] | None = None,
    ) -> NDArray[Any] | QuantizedTensor:
        """``weight`` [out_features, in_features], quantised where ``made`` says so."""
        scheme = self.made(weight.shape[1], is_fine=is_fine)
        return weight if scheme is None else quantize(weight, scheme, importance)

    def groups(
        self, names: Sequence[str], stored: Sequence[str | None], in_features: int
    ) -> list[slice]:
        """Which weights are to be stacked: all where they are packed alike, else each by itself.

        ``stored`` are their dtypes in the checkpoint.
        """
        schemes = {
            self.kept([dtype]) or self.made(in_features, is_fine=is_fine([name]))
            for name, dtype in zip(names, stored, strict=True)
        }
        if len(schemes) == 1:
            return [slice(len(names))]
        return [slice(part, part + 1) for part in range(len(names))]


def is_fine(names: Sequence[str]) -> bool:
    """Whether weights are worth more bits: output projections and values.

    Errors of the one go straight into the logits, and those of the others past the attention's
    weights. A step reads the head once, and values are a small part of a layer.
    """
    return {name.removesuffix(".weight").rpartition(".")[2] for name in names} <= _FINE_NAMES


def packing_for(
    quantization: Quantization | None,
    schemes: Collection[str],
    source: TensorSource | ShapelessSource,
) -> Packing:
    """Check what is asked for; raises UsageError where backend or checkpoint do not fit it."""
    if quantization is not None:
        _check_backend(quantization, schemes)
        if not isinstance(source, ShapelessSource):
            _check_source(quantization, source)
    return Packing(tuple(schemes), quantization)


def _check_backend(quantization: Quantization, schemes: Collection[str]) -> None:
    possible = [name for name, scheme in _SCHEMES.items() if {scheme, _FINE_SCHEME} <= {*schemes}]
    if quantization in possible:
        return
    instead = f"use one of {', '.join(possible)}, or" if possible else "leave it out, or"
    raise UsageError(
        f"quantization={quantization!r}: this backend does not multiply with weights packed as "
        f"{_SCHEMES[quantization]} (it takes {', '.join(schemes) or 'none packed'}); {instead} "
        "choose a backend that does (docs/serving.md, Quantisation)."
    )


def _check_source(quantization: Quantization, source: TensorSource) -> None:
    dtypes = {source.dtype(name) for name in source.names()}
    packed = sorted(dtype for dtype in dtypes if dtype.startswith("gguf:"))
    if packed:
        raise UsageError(
            f"quantization={quantization!r}: the checkpoint is quantised already "
            f"({', '.join(packed)}), and a second rounding would lose for nothing. Leave it out to "
            "use the weights as they are packed, or load a checkpoint of float32, bfloat16 or "
            "float16."
        )
