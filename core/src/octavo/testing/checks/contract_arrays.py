"""Checks of put and get: what goes to the device comes back bit for bit, and stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from octavo.isolation import describe
from octavo.loading.dtypes import numpy_dtype
from octavo.testing.check import Blocked, Case, Check, CheckFailure
from octavo.testing.checks.raw_backend import opened_sound

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from octavo.testing.subject import Subject

__all__ = ["CHECKS"]

_BITS = {"float32": np.uint32, "float16": np.uint16, "bfloat16": np.uint16, "float64": np.uint64}


def _cases(subject: Subject) -> Iterable[Case]:
    try:
        with opened_sound(subject) as backend:
            dtypes = backend.caps.dtypes
    except Blocked:
        dtypes = ("float32",)
    for dtype in dtypes:
        yield Case(f"{dtype} bits", _round_trip(_float_bits(dtype)))
        yield Case(f"{dtype} from float32", _converted(dtype))
        yield Case(f"{dtype} empty", _round_trip(np.zeros((0, 3), numpy_dtype(dtype))))
    integers = np.array([[0, -1, 1], [-(1 << 31), (1 << 31) - 1, 1 << 24]], np.int32)
    yield Case("int32", _round_trip(integers))
    yield Case("bool", _round_trip(np.array([[True, False], [False, False]])))
    matrix = np.arange(24, dtype=np.float32).reshape(4, 6)
    yield Case("0-d", _round_trip(np.array(2.5, np.float32)))
    yield Case("transposed", _round_trip(matrix.T))
    yield Case("strided", _round_trip(matrix[::2, 1::3]))
    yield Case("reversed", _round_trip(matrix[::-1]))
    yield Case("broadcast", _round_trip(np.broadcast_to(np.float32(3), (2, 5))))
    yield Case("read-only", _round_trip(_read_only(matrix)))
    yield Case("got stays", _check_got_stays)


def _run_value(subject: Subject, value: Any) -> None:
    value(subject)


def _float_bits(dtype: str) -> NDArray[Any]:
    """Every 16-bit pattern, or 64 thousand patterns of a wider dtype: NaN, infinities, -0.0 too."""
    unsigned = np.dtype(_BITS[dtype])
    patterns = np.arange(1 << 16, dtype=unsigned)
    if unsigned.itemsize > 2:  # sign, exponent and the mantissa's ends; with all its bits as well
        shift = unsigned.type(8 * unsigned.itemsize - 16)
        patterns = np.where(patterns % 2 == 0, patterns << shift, (patterns << shift) | patterns)
    return patterns.astype(unsigned).view(numpy_dtype(dtype)).reshape(256, 256)


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    locked = array.copy()
    locked.flags.writeable = False
    return locked


def _round_trip(host: NDArray[Any]) -> Callable[[Subject], None]:
    def check(subject: Subject) -> None:
        with opened_sound(subject) as backend:
            got = _there_and_back(backend, host, None)
        _compare(got, host.astype(host.dtype.newbyteorder("=")), "put and get")

    return check


def _converted(dtype: str) -> Callable[[Subject], None]:
    """``put(array, dtype)`` rounds to the nearest, ties to even, as NumPy and ml_dtypes do."""

    def check(subject: Subject) -> None:
        # Sums of 1 and a few small powers of two: among them every kind of tie.
        exponents = np.arange(6, 15)
        steps = 2.0 ** -exponents[:, None] + 2.0 ** -exponents[None]
        values = np.concatenate([1 + steps, 1 - steps, -1 - steps, [[np.inf, -np.inf, -0.0] * 3]])
        host = values.astype(np.float32)
        with opened_sound(subject) as backend:
            got = _there_and_back(backend, host, dtype)
        _compare(got, host.astype(numpy_dtype(dtype)), f"put(array, {dtype!r}) and get")

    return check


def _there_and_back(backend: Any, host: NDArray[Any], dtype: str | None) -> Any:
    try:
        return backend.get(backend.put(host, dtype))
    except Exception as error:
        raise CheckFailure(
            f"Putting {_described(host)} and getting it back raised {describe(error)}."
        ) from error


def _described(host: NDArray[Any]) -> str:
    access = "" if host.flags.writeable else ", read-only"
    return f"an array {host.dtype.name}{list(host.shape)}, strides {host.strides}{access},"


def _compare(got: Any, expected: NDArray[Any], what: str) -> None:
    """Raise CheckFailure unless bits are equal; NaN may become another NaN."""
    if not isinstance(got, np.ndarray):
        raise CheckFailure(
            f"get returned an object of type {type(got).__name__}; expected a NumPy array.",
            look="backend.get",
        )
    if got.shape != expected.shape or got.dtype.name != expected.dtype.name:
        raise CheckFailure(
            f"After {what}, {expected.dtype.name}{list(expected.shape)} was expected and "
            f"{got.dtype.name}{list(got.shape)} came back."
        )
    got = got.astype(got.dtype.newbyteorder("="))
    differs = ~(_bits(got) == _bits(expected))
    if expected.dtype.name in _BITS:
        with np.errstate(invalid="ignore"):  # signalling NaNs are among the patterns
            differs &= ~(np.isnan(got) & np.isnan(expected))
    if not differs.any():
        return
    at = tuple(int(place) for place in np.argwhere(differs)[0])
    raise CheckFailure(
        f"After {what} of {expected.dtype.name}{list(expected.shape)}, {int(differs.sum())} of "
        f"{differs.size} elements have other bits: at {list(at)} there was {expected[at]!s} "
        f"(0x{int(_bits(expected)[at]):x}), and {got[at]!s} (0x{int(_bits(got)[at]):x}) came back."
    )


def _bits(array: NDArray[Any]) -> NDArray[Any]:
    unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[array.dtype.itemsize]
    bits: NDArray[Any] = np.ascontiguousarray(array).view(unsigned).reshape(array.shape)
    return bits


def _check_got_stays(subject: Subject) -> None:
    """What get returned belongs to the host: the next put, op and get leave it alone."""
    with opened_sound(subject) as backend:
        dtype = backend.caps.dtypes[0]
        weight = np.ones((4, 4), np.float32).astype(numpy_dtype(dtype))
        prepared = backend.put_linear(weight, None, dtype)
        got, copies = [], []
        for value in (1.0, 2.0, 3.0):
            sent = np.full((2, 4), value, np.float32)
            placed = backend.put(sent, dtype)
            for array in (placed, backend.ops.linear(placed, prepared)):
                got.append(backend.get(array))
                copies.append(np.array(got[-1]))
    for nth, (now, then) in enumerate(zip(got, copies, strict=True)):
        if not np.array_equal(now, then):
            raise CheckFailure(
                f"The array that get returned as number {nth + 1} held {then.reshape(-1)[0]!s}; "
                f"after further calls of put, linear and get it holds {now.reshape(-1)[0]!s}. "
                "Return a copy, or a buffer that is not used again.",
                look="backend.get",
            )


CHECKS: tuple[Check, ...] = (
    Check(
        "contract",
        "put_get",
        "arrays of every dtype, shape and layout come back from the device bit for bit",
        "backend.put, backend.get",
        _run_value,
        _cases,
    ),
)
