"""Zeros on the CPU that take no memory before they are written, as NumPy's do.

A cache is as large as memory allows and is filled as contexts grow. The system gives a page of
zeros when it is first touched; XLA's own zeros would touch all of them before the first request.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback

__all__ = ["untouched_zeros"]

_SYSTEM_BYTES = 1 << 25
"""Memory of this size comes from the system; a smaller piece may be one that was used before."""


def untouched_zeros(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> jax.Array:
    """On the default device, which is a CPU."""
    if math.prod(shape) * dtype.itemsize < _SYSTEM_BYTES:
        return jnp.zeros(shape, dtype)
    allocated: jax.Array = _allocate(shape, dtype)()
    return allocated.block_until_ready()


@functools.cache
def _allocate(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Any:
    """A program whose result nobody writes to."""
    return jax.jit(buffer_callback(_write_nothing, jax.ShapeDtypeStruct(shape, dtype)))


def _write_nothing(_context: Any, _out: Any) -> None:
    """The buffer stays as it was allocated."""
