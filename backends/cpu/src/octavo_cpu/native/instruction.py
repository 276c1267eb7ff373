"""An instruction as the kernels read it: kernels/abi.h in NumPy's words; a test compares them."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

__all__ = ["INSTRUCTION", "MAX_OPERANDS", "MAX_SIZES", "Element", "Opcode", "Scheme"]

MAX_OPERANDS = 11
MAX_SIZES = 16
MAX_SCALARS = 4


class Element(IntEnum):
    """The type of an instruction's activations, or of a cache."""

    F32 = 0
    BF16 = 1
    F16 = 2
    I8 = 3


class Opcode(IntEnum):
    """What an instruction does; kernels/abi.h says with which operands, sizes and scalars."""

    EMBED = 0
    TAKE_ROWS = 1
    RMS_NORM = 2
    ADD_RMS_NORM = 3
    LAYER_NORM = 4
    ROPE_TABLE = 5
    ROPE = 6
    SILU_MUL = 7
    GELU_MUL = 8
    GELU = 9
    SOFT_CAP = 10
    ADD = 11
    SUBTRACT = 12
    MULTIPLY = 13
    COPY = 14
    LINEAR = 15
    WRITE_KV = 16
    ATTENTION = 17
    ATTENTION_COMBINE = 18
    ARGMAX = 19
    DRAW = 20


class Scheme(IntEnum):
    """How a weight matrix arrives."""

    F32 = 0
    BF16 = 1
    F16 = 2
    Q4_0 = 3
    Q4_1 = 4
    Q8_0 = 5
    Q4_K = 6
    Q6_K = 7


INSTRUCTION = np.dtype(
    [
        ("opcode", np.int32),
        ("element", np.int32),
        ("operands", np.int32, MAX_OPERANDS),
        ("padding", np.int32),
        ("sizes", np.int64, MAX_SIZES),
        ("scalars", np.float32, MAX_SCALARS),
    ]
)
