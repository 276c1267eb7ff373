"""Arrays as the portable ops see them, and the closed list of what they ask of a namespace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import array_api_compat
import array_api_extra as xpx

from octavo.errors import BackendError

__all__ = [
    "NAMESPACE_DTYPES",
    "NAMESPACE_FUNCTIONS",
    "Array",
    "Namespace",
    "Place",
    "check_namespace",
    "device_of",
    "set_at",
]

Array: TypeAlias = Any
"""An array of the namespace at hand. Models see ``octavo.ops.protocol.Array``, which is less.

The portable ops use its ``shape``, ``dtype``, ``reshape(*shape)`` and ``T``; the operators
``+ - * / // % ** & | ~ << >>`` and comparisons, also with Python numbers, which do not change its
dtype; integers, slices, ``None`` and ``...`` as indices; and a pair of int32 arrays as an index.
"""

Place: TypeAlias = Array | tuple[Array, Array]
"""What ``set_at`` writes to: int32 indices along the first axis, or pairs of the first two."""

Namespace: TypeAlias = Any
"""Where arrays come from: a module with NAMESPACE_DTYPES, NAMESPACE_FUNCTIONS and no more.

``array_api_compat.numpy``, ``array_api_compat.torch`` and ``jax.numpy`` are namespaces as they are.
For any other library, write a module that imports what is alike, and defines what is not and
``set_at`` (below). Where arrays have no ``device``, functions that take one are passed None.
"""

NAMESPACE_DTYPES = ("float32", "int32")

NAMESPACE_FUNCTIONS: Mapping[str, str] = {
    "arange": "(stop, *, dtype, device)",
    "asarray": "(floats, *, dtype, device)",
    "full_like": "(x, value)",
    "ones_like": "(x)",
    "zeros_like": "(x)",
    "astype": "(x, dtype, *, copy=True)",
    "abs": "(x)",
    "ceil": "(x)",
    "cos": "(x)",
    "exp": "(x)",
    "isfinite": "(x)",
    "log": "(x)",
    "round": "(x)",  # half to even
    "sign": "(x)",
    "sin": "(x)",
    "sqrt": "(x)",
    "tanh": "(x)",
    "matmul": "(x, y)",
    "maximum": "(x, y)",
    "where": "(condition, x, y)",  # y may be a Python number
    "argmax": "(x, *, axis)",  # the first of equals; NaN counts as the largest
    "argsort": "(x, *, axis, stable)",  # as argmax, of any integer dtype
    "cumulative_sum": "(x, *, axis, dtype)",
    "max": "(x, *, axis, keepdims=False)",
    "mean": "(x, *, axis, keepdims)",
    "sort": "(x, *, axis, descending)",
    "sum": "(x, *, axis, dtype=None, keepdims=False)",
    "concat": "(arrays, *, axis)",
    "permute_dims": "(x, axes)",
    "take": "(x, indices, *, axis)",  # int32 indices of one dimension
    "take_along_axis": "(x, indices, *, axis)",  # indices of the dtype that argmax gives
}
"""The array API standard's functions, each called with at most these arguments.

What is summed or looked up in int32 stays int32, whatever the library's default integer. No array
that is sorted or reduced is empty.
"""

_WITHOUT_SET_AT = (
    array_api_compat.is_numpy_namespace,
    array_api_compat.is_torch_namespace,
    array_api_compat.is_jax_namespace,
)


def check_namespace(xp: Namespace) -> None:
    """Raise BackendError naming everything that ``xp`` lacks."""
    required = [*NAMESPACE_DTYPES, *NAMESPACE_FUNCTIONS]
    if not any(is_known(xp) for is_known in _WITHOUT_SET_AT):
        required.append("set_at")
    lacking = [name for name in required if not hasattr(xp, name)]
    if lacking:
        raise BackendError(
            f"The namespace {getattr(xp, '__name__', xp)!r} lacks {', '.join(lacking)}, which the "
            "portable ops call. Hand PortableOps a module that imports what the array library has "
            "and defines the rest; octavo.ops.arrays lists how each is called."
        )


def device_of(x: Array) -> Any:
    """Where to create an array that is to meet ``x``; None if ``x`` does not say where it is."""
    try:
        return array_api_compat.device(x)
    except AttributeError:  # a library with a single place for all its arrays
        return None


def set_at(xp: Namespace, x: Array, place: Place, values: Array, *, copy: bool) -> Array:
    """``x`` with ``x[place] = values``.

    With ``copy`` the argument stays as it was. Without, it must not be used afterwards, and may be
    updated in place. Of two values for one place, either may win.
    """
    own = getattr(xp, "set_at", None)
    if own is not None:
        return own(x, place, values, copy=copy)
    return xpx.at(x, place).set(values, copy=True if copy else None)
