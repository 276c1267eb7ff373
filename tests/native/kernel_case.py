"""Runs one instruction of the native backend on NumPy arrays, without the backend around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from octavo.api import DeviceError
from octavo_cpu.native.instruction import INSTRUCTION, Element, Opcode
from octavo_cpu.native.library import Context, PackedLinear, load_library, variants

DTYPES = {
    Element.F32: np.dtype(np.float32),
    Element.BF16: np.dtype(ml_dtypes.bfloat16),
    Element.F16: np.dtype(np.float16),
    Element.I8: np.dtype(np.int8),
}


def runnable_variants() -> list[Any]:
    """Every instruction set this processor has, as parameters; one that skips if none is built."""
    try:
        load_library()
    except DeviceError as error:
        return [pytest.param("", marks=pytest.mark.skip(reason=str(error)))]
    return [pytest.param(name, id=name) for name in variants()]


@contextmanager
def context(variant: str, num_threads: int = 2) -> Iterator[Context]:
    """A context that is closed behind the test."""
    with closing(Context(num_threads, variant)) as opened:
        yield opened


def run(
    opened: Context,
    opcode: Opcode,
    element: Element,
    operands: Sequence[NDArray[Any] | PackedLinear | None],
    sizes: Sequence[int],
    scalars: Sequence[float] = (),
) -> None:
    """Carry out one instruction; outputs are among the operands, None stands for a missing one."""
    instruction = np.zeros(1, INSTRUCTION)
    instruction["opcode"], instruction["element"] = opcode, element
    instruction["operands"] = -1
    pointers = []
    for index, operand in enumerate(operands):
        if operand is not None:
            instruction["operands"][0, index] = len(pointers)
            is_array = isinstance(operand, np.ndarray)
            pointers.append(operand.ctypes.data if is_array else operand.handle)
    instruction["sizes"][0, : len(sizes)] = sizes
    instruction["scalars"][0, : len(scalars)] = scalars
    opened.run(instruction, np.array(pointers, np.uint64))
