"""Prepares weights for ``linear``: any array or packed tensor, in the layout of the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from octavo.api import BackendError, QuantizedTensor
from octavo_cpu.native.instruction import Scheme

if TYPE_CHECKING:
    from octavo_cpu.native.library import Context, PackedLinear

__all__ = ["DTYPES", "QUANTIZATION", "pack"]

DTYPES = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
}
"""The dtypes to compute in, the preferred one first."""

_SCHEMES = {
    "float32": Scheme.F32,
    "bfloat16": Scheme.BF16,
    "float16": Scheme.F16,
    "gguf:Q4_0": Scheme.Q4_0,
    "gguf:Q4_1": Scheme.Q4_1,
    "gguf:Q8_0": Scheme.Q8_0,
    "gguf:Q4_K": Scheme.Q4_K,
    "gguf:Q6_K": Scheme.Q6_K,
}

QUANTIZATION = tuple(name for name in _SCHEMES if name.startswith("gguf:"))
"""Packed weights that are multiplied as they are."""


def pack(
    context: Context,
    weight: NDArray[Any] | QuantizedTensor,
    bias: NDArray[Any] | None,
    dtype: str,
) -> PackedLinear:
    """A weight [out_features, in_features]; what is not packed is rounded to ``dtype`` first."""
    if bias is not None:
        bias = bias.astype(DTYPES[dtype], copy=False).astype(np.float32)
    if isinstance(weight, QuantizedTensor):
        if weight.scheme not in QUANTIZATION:
            raise BackendError(
                f"Backend 'native' was handed a weight packed as {weight.scheme}; it takes "
                f"{', '.join(QUANTIZATION)}."
            )
        return context.pack(_SCHEMES[weight.scheme], weight.data, *weight.shape, bias)
    out_features, in_features = weight.shape
    rows = weight.astype(DTYPES[dtype], copy=False)
    if min(rows.strides) < 0 or not rows.flags.aligned:
        rows = rows.copy()
    return context.pack(_SCHEMES[dtype], rows, out_features, in_features, bias)
