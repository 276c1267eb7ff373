"""A layer's keys and values as arrays of XLA's, and how numbers of 16 and 8 bits are kept there.

On the CPU XLA computes in float32 what it is given in bfloat16, a scatter too: it would turn all of
a cache into float32 and back for each token that is written. So such a cache is of whole numbers
with the same bits, which are copied as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from octavo.api import step_tree
from octavo_tpu.cache_numbers import narrowed

if TYPE_CHECKING:
    from jaxtyping import Float, Num

    from octavo.api import KVSpec

__all__ = ["XlaCache", "decode", "encode", "make_xla_cache", "storage_dtype"]

_BITS = {1: np.uint8, 2: np.uint16}


@step_tree(static=("dtype",))
@dataclass(frozen=True)
class XlaCache:
    """Tokens of a block side by side: a slot is a row, so that writing one is one copy.

    The heads of a token's keys come before those of its values.
    """

    kv: Any  # [num_blocks, block_size, 2 * kv_heads, head_dim], of storage_dtype(dtype)
    scales: Any  # f32[num_blocks, block_size, 2 * kv_heads] for int8, else None
    dtype: str
    """What the bits of ``kv`` mean."""


def storage_dtype(dtype: str) -> np.dtype[np.generic]:
    """Of the arrays that keep numbers of ``dtype``."""
    meant: np.dtype[np.generic] = jnp.dtype(dtype)
    is_copied = meant.itemsize > 2 or dtype == "int8"
    return meant if is_copied else np.dtype(_BITS[meant.itemsize])


def make_xla_cache(
    spec: KVSpec, num_blocks: int, block_size: int, zeros: Callable[..., Any] = jnp.zeros
) -> XlaCache:
    """Of ``zeros(shape, dtype)``."""
    rows = (num_blocks, block_size, 2 * spec.num_kv_heads)
    scales = zeros(rows, np.dtype(np.float32)) if spec.dtype == "int8" else None
    return XlaCache(zeros((*rows, spec.head_dim), storage_dtype(spec.dtype)), scales, spec.dtype)


def encode(
    numbers: Float[jax.Array, "*rows head_dim"], dtype: str
) -> tuple[Num[jax.Array, "*rows head_dim"], Float[jax.Array, "*rows"] | None]:
    """As a cache keeps them: bits or codes, and the codes' scales."""
    narrow, scales = narrowed(numbers, dtype)
    stored = storage_dtype(dtype)
    if stored != narrow.dtype:
        narrow = jax.lax.bitcast_convert_type(narrow, stored)
    return narrow, scales


def decode(
    stored: Num[jax.Array, "*rows head_dim"], scales: Float[jax.Array, "*rows"] | None, dtype: str
) -> Float[jax.Array, "*rows head_dim"]:
    """The numbers, in float32."""
    if stored.dtype != jnp.dtype(dtype):
        stored = jax.lax.bitcast_convert_type(stored, jnp.dtype(dtype))
    numbers = stored.astype(jnp.float32)
    return numbers if scales is None else numbers * scales[..., None]
