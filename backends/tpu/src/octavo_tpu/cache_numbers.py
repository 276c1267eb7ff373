"""Numbers as a cache keeps them, whatever its layout: converted, held to a range, or codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

if TYPE_CHECKING:
    import jax
    from jaxtyping import Float, Num

__all__ = ["narrowed"]

_INT8_MAX = 127.0


def narrowed(
    numbers: Float[jax.Array, "*rows head_dim"], dtype: str
) -> tuple[Num[jax.Array, "*rows head_dim"], Float[jax.Array, "*rows"] | None]:
    """In ``dtype``, and the scales that a row of int8 codes is to be multiplied by.

    What is beyond the range of an 8-bit float becomes its largest number.
    """
    meant = jnp.dtype(dtype)
    if meant.itemsize > 1:
        return numbers.astype(meant), None
    numbers = numbers.astype(jnp.float32)
    if dtype == "int8":
        scales = jnp.max(jnp.abs(numbers), axis=-1) / _INT8_MAX
        divisors = jnp.where(scales > 0, scales, 1.0)[..., None]
        return jnp.round(numbers / divisors).astype(meant), scales
    largest = float(jnp.finfo(meant).max)
    return jnp.clip(numbers, -largest, largest).astype(meant), None
