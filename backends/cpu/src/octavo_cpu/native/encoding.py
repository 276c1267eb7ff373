"""One instruction in bytes, as the kernels read it: the same for a call at once and a recording."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from octavo.api import BackendError
from octavo_cpu.native.instruction import (
    INSTRUCTION,
    MAX_OPERANDS,
    MAX_SCALARS,
    MAX_SIZES,
    Element,
    Opcode,
)

__all__ = ["SIZES_OFFSET", "WORDS", "element_of", "encode"]

_FORM = struct.Struct(f"={2 + MAX_OPERANDS + 1}i{MAX_SIZES}q{MAX_SCALARS}f")
WORDS = INSTRUCTION.itemsize // 8
"""Numbers of 64 bits in an instruction."""
SIZES_OFFSET = (2 + MAX_OPERANDS + 1) // 2
"""Which of them is the first size."""

_ELEMENTS = {
    np.dtype(np.float32): Element.F32,
    np.dtype(ml_dtypes.bfloat16): Element.BF16,
    np.dtype(np.float16): Element.F16,
}


def element_of(dtype: np.dtype[Any], opcode: Opcode) -> Element:
    """The type of an instruction's activations."""
    try:
        return _ELEMENTS[dtype]
    except KeyError:
        raise BackendError(
            f"Op {opcode.name.lower()} was given an array of {dtype}; the kernels compute on "
            "float32, bfloat16 and float16."
        ) from None


def encode(
    opcode: Opcode,
    element: Element,
    slots: Sequence[int],
    sizes: Sequence[int],
    scalars: Sequence[float],
) -> bytes:
    """``slots`` index the table of pointers; -1 stands for a missing operand."""
    return _FORM.pack(
        opcode,
        element,
        *slots,
        *(-1,) * (MAX_OPERANDS - len(slots)),
        0,
        *sizes,
        *(0,) * (MAX_SIZES - len(sizes)),
        *scalars,
        *(0.0,) * (MAX_SCALARS - len(scalars)),
    )
