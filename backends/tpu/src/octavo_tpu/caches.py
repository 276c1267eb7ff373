"""A layer's keys and values as arrays of XLA's, and how numbers of 16 and 8 bits are kept there.

On the CPU XLA computes in float32 what it is given in bfloat16, a scatter too: it would turn all of
a cache into float32 and back for each token that is written. So such a cache is of whole numbers
with the same bits, which are copied as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from octavo.api import step_tree

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from octavo.api import KVSpec

__all__ = ["XlaCache", "cache_shape", "decode", "encode", "storage_dtype"]

_BITS = {1: np.uint8, 2: np.uint16}


@step_tree(static=("dtype",))
@dataclass(frozen=True)
class XlaCache:
    """Tokens of a block side by side: a slot is a row, so that writing one is one copy."""

    k: Any  # [num_blocks, block_size, kv_heads, head_dim], of storage_dtype(dtype); NumPy's on
    v: Any  # the host
    dtype: str
    """What the bits mean."""


def storage_dtype(dtype: str) -> np.dtype[np.generic]:
    """Of the arrays that keep numbers of ``dtype``."""
    meant: np.dtype[np.generic] = jnp.dtype(dtype)
    return meant if meant.itemsize > 2 else np.dtype(_BITS[meant.itemsize])


def cache_shape(spec: KVSpec, num_blocks: int, block_size: int) -> tuple[int, int, int, int]:
    """Of its keys, and of its values."""
    return (num_blocks, block_size, spec.num_kv_heads, spec.head_dim)


def encode(
    numbers: Float[jax.Array, "tokens kv_heads head_dim"], dtype: str
) -> Int[jax.Array, "tokens kv_heads head_dim"] | Float[jax.Array, "tokens kv_heads head_dim"]:
    """As a cache keeps them; what is beyond an 8-bit float's range becomes its largest number."""
    meant = jnp.dtype(dtype)
    if meant.itemsize == 1:
        largest = float(jnp.finfo(meant).max)
        numbers = jnp.clip(numbers.astype(jnp.float32), -largest, largest)
    converted = numbers.astype(meant)
    if meant.itemsize > 2:
        return converted
    return jax.lax.bitcast_convert_type(converted, storage_dtype(dtype))


def decode(stored: jax.Array, dtype: str) -> Float[jax.Array, "..."]:
    """The numbers, in float32."""
    meant = jnp.dtype(dtype)
    if meant.itemsize <= 2:
        stored = jax.lax.bitcast_convert_type(stored, meant)
    return stored.astype(jnp.float32)
