"""Makes Triton's interpreter compute what a GPU would, and notice what it would not survive.

As it comes, the interpreter holds bfloat16 and float8 as bit patterns and does arithmetic on those.
``install`` makes it compute by value and round to nearest even. A float8 that overflows becomes
what the format has for it (NaN or infinity), never the largest number: a kernel that wants to
saturate must clamp, for hardware differs.

Beyond that it makes the interpreter stricter than it is:

- a load or store that its mask lets through must lie within a tensor that was passed to the kernel;
- ``tl.dot`` of float32 rounds its operands to tf32 unless ``input_precision="ieee"``, as on NVIDIA;
- programs run from the last to the first, so that none can count on those before it;
- a reduction or an atomic on bfloat16 or float8 is refused: Triton promotes the ones it can.

All this replaces internals, so it holds for one version of Triton.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder, TensorHandle
from triton.tools.tensor_descriptor import TensorDescriptor

__all__ = ["TRITON_VERSION", "install"]

TRITON_VERSION = "3.9.0"

_BY_VALUE = {
    tl.bfloat16: ml_dtypes.bfloat16,
    tl.float8e5: ml_dtypes.float8_e5m2,
    tl.float8e4nv: ml_dtypes.float8_e4m3fn,
    tl.float8e4b8: ml_dtypes.float8_e4m3fnuz,
    tl.float8e5b16: ml_dtypes.float8_e5m2fnuz,
}


def install() -> None:
    """Replace what is wrong or lax; once in a process."""
    if triton.__version__ != TRITON_VERSION:
        raise RuntimeError(
            f"The interpreter's shim is for Triton {TRITON_VERSION}, this is {triton.__version__}: "
            "install that version, or adapt tests/triton_kernels/interpreter_shim.py to this one."
        )
    _compute_by_value()
    _refuse_bits()
    _check_addresses()
    _reverse_programs()


def _is_bits(handle: Any) -> bool:
    return isinstance(handle, TensorHandle) and handle.dtype.scalar in _BY_VALUE


def _values(handle: Any) -> Any:
    """The same handle, in float32 where its type is held as bits."""
    if not _is_bits(handle):
        return handle
    values = handle.data.view(_BY_VALUE[handle.dtype.scalar]).astype(np.float32)
    return TensorHandle(values, tl.float32)


def _bits(values: np.ndarray, dtype: tl.dtype) -> TensorHandle:
    rounded = np.ascontiguousarray(values, np.float32).astype(_BY_VALUE[dtype])
    return TensorHandle(rounded.view(np.dtype(f"u{rounded.itemsize}")), dtype)


def _replace(owner: type, name: str, make: Callable[[Callable[..., Any]], Any]) -> None:
    setattr(owner, name, make(getattr(owner, name)))


def _compute_by_value() -> None:
    for name in ("unary_op", "binary_op", "ternary_op", "create_fma"):
        _replace(InterpreterBuilder, name, _arithmetic)
    for name in ("cast_impl", "create_fp_to_fp"):
        _replace(InterpreterBuilder, name, _conversion)
    _replace(InterpreterBuilder, "create_dot", _dot)


def _arithmetic(original: Callable[..., Any]) -> Callable[..., Any]:
    def compute(self: Any, *operands: Any) -> TensorHandle:
        handles = [operand for operand in operands if isinstance(operand, TensorHandle)]
        if not _is_bits(handles[-1]) or operands[-1] is np.where:
            return original(self, *operands)
        result = original(self, *map(_values, operands)).data
        if result.dtype == np.bool_:
            return TensorHandle(result, tl.int1)
        return _bits(result, handles[-1].dtype.scalar)

    return compute


def _conversion(original: Callable[..., Any]) -> Callable[..., Any]:
    def convert(self: Any, source: TensorHandle, to: tl.dtype, *rounding: Any) -> TensorHandle:
        to = to.scalar
        if not _is_bits(source) and to not in _BY_VALUE:
            return original(self, source, to, *rounding)
        if "RTZ" in str(rounding):
            raise NotImplementedError("The shim rounds to nearest even, and knows no other way.")
        values = _values(source).data
        if to in _BY_VALUE:
            return _bits(values, to)
        return TensorHandle(values.astype(interpreter._get_np_dtype(to)), to)

    return convert


def _dot(original: Callable[..., Any]) -> Callable[..., Any]:
    def dot(self: Any, a: Any, b: Any, c: Any, precision: Any, imprecise: Any) -> TensorHandle:
        if a.dtype.scalar == tl.float32 and str(precision).endswith("TF32"):
            a, b = (
                TensorHandle(interpreter._round_f32_to_tf32(side.data), tl.float32)
                for side in (a, b)
            )
        return original(self, _values(a), _values(b), c, precision, imprecise)

    return dot


def _refuse_bits() -> None:
    def refusing(original: Callable[..., Any]) -> Callable[..., Any]:
        def check(self: Any, *operands: Any) -> Any:
            flat = [
                each for item in operands for each in (item if isinstance(item, tuple) else [item])
            ]
            if any(_is_bits(getattr(each, "handle", each)) for each in flat):
                raise TypeError("Reduce, scan and add atomically in float32, not in 8 or 16 bits.")
            return original(self, *operands)

        return check

    for owner in (interpreter.ReduceOps, interpreter.ScanOps):
        _replace(owner, "apply_impl", refusing)
    for name in ("create_atomic_rmw", "create_atomic_cas"):
        _replace(InterpreterBuilder, name, refusing)


class _Memory:
    """Where the tensors that a kernel was given lie."""

    def __init__(self) -> None:
        self.starts = self.ends = np.zeros(0, np.uint64)

    def set(self, arguments: list[Any]) -> None:
        extents = sorted(set(_extents(arguments)))
        self.starts, self.ends = np.array(extents, np.uint64).reshape(-1, 2).T

    def check(self, what: str, pointers: TensorHandle, mask: np.ndarray | None) -> None:
        addresses = (
            pointers.data
            if mask is None
            else pointers.data[np.broadcast_to(mask, pointers.data.shape)]
        )
        if not addresses.size:
            return
        size = np.uint64(pointers.get_element_ty().primitive_bitwidth // 8)
        nearest = np.searchsorted(self.starts, addresses, side="right") - 1
        inside = (nearest >= 0) & (addresses + size <= self.ends[nearest])
        if not inside.all():
            raise IndexError(
                f"{what} outside of every tensor: {_nearest(self, addresses[~inside])}."
            )


def _extents(arguments: Any) -> list[tuple[int, int]]:
    found = []
    for argument in arguments:
        if isinstance(argument, (tuple, list)):
            found += _extents(argument)
        elif isinstance(argument, TensorDescriptor):
            found += _extents([argument.base])
        elif isinstance(argument, torch.Tensor) and argument.numel():
            storage = argument.untyped_storage()
            found.append((storage.data_ptr(), storage.data_ptr() + storage.nbytes()))
    return found


def _nearest(memory: _Memory, addresses: np.ndarray) -> str:
    address = int(addresses.flat[0])
    after = [address - int(end) for end in memory.ends if address >= end]
    before = [int(start) - address for start in memory.starts if address < start]
    places = [f"{min(after)} bytes behind the end of one"] * bool(after)
    places += [f"{min(before)} bytes before the start of one"] * bool(before)
    return f"{addresses.size} addresses, the first " + " and ".join(places)


def _check_addresses() -> None:
    memory = _Memory()

    def host(original: Callable[..., Any]) -> Callable[..., Any]:
        def init(self: Any, positional: Any, named: dict[str, Any]) -> Any:
            arguments, keywords = original(self, positional, named)
            memory.set([*arguments, *keywords.values()])
            return arguments, keywords

        return init

    def checking(what: str, mask_at: int) -> Callable[..., Any]:
        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            def access(self: Any, *operands: Any, **options: Any) -> Any:
                pointers = next(each for each in operands if isinstance(each, TensorHandle))
                mask = operands[mask_at] if mask_at else None
                memory.check(what, pointers, None if mask is None else mask.data)
                return original(self, *operands, **options)

            return access

        return wrap

    _replace(GridExecutor, "_init_args_hst", host)
    _replace(InterpreterBuilder, "create_masked_load", checking("A load", 1))
    _replace(InterpreterBuilder, "create_masked_store", checking("A store", 2))
    _replace(InterpreterBuilder, "create_atomic_rmw", checking("An atomic", 3))
    _replace(InterpreterBuilder, "create_atomic_cas", checking("An atomic", 0))


def _reverse_programs() -> None:
    def reverse(original: Callable[..., Any]) -> Callable[..., Any]:
        def set_grid_idx(self: Any, *index: int) -> None:
            last_first = (size - 1 - at for size, at in zip(self.grid_dim, index, strict=True))
            original(self, *last_first)

        return set_grid_idx

    _replace(InterpreterBuilder, "set_grid_idx", reverse)
