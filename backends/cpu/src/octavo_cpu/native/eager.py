"""Carries out an instruction at once, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from octavo_cpu.native.encoding import element_of, encode
from octavo_cpu.native.instruction import Opcode
from octavo_cpu.native.library import PackedLinear
from octavo_cpu.native.rows import Size, number_of

if TYPE_CHECKING:
    from octavo_cpu.native.library import Context

__all__ = ["Eager", "Recorder"]


class Recorder(Protocol):
    """What an op writes its instruction to: it is carried out now, or in every step to come."""

    def new(self, shape: tuple[Any, ...], dtype: np.dtype[Any]) -> Any:
        """An array for a result."""
        ...

    def emit(
        self,
        opcode: Opcode,
        dtype: np.dtype[Any],
        operands: Sequence[Any],
        sizes: Sequence[Size],
        scalars: Sequence[float] = (),
    ) -> None:
        """An instruction on arrays, of which ``dtype`` is the type of the activations."""
        ...


class Eager:
    """Runs every instruction as it comes."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def new(self, shape: tuple[Any, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Memory of its own, since a caller may keep it."""
        return np.empty(shape, dtype)

    def emit(
        self,
        opcode: Opcode,
        dtype: np.dtype[Any],
        operands: Sequence[Any],
        sizes: Sequence[Size],
        scalars: Sequence[float] = (),
    ) -> None:
        """Raises BackendError if memory runs out."""
        slots = [-1 if operand is None else index for index, operand in enumerate(operands)]
        code = encode(
            opcode, element_of(dtype, opcode), slots, list(map(number_of, sizes)), scalars
        )
        self._context.run_one(code, [address_of(operand) for operand in operands])


def address_of(operand: Any) -> int:
    """Of an array's first element, or of a prepared weight; 0 for None."""
    if operand is None:
        return 0
    if isinstance(operand, PackedLinear):
        return operand.handle
    address: int = operand.__array_interface__["data"][0]  # quicker than by way of ctypes
    return address
