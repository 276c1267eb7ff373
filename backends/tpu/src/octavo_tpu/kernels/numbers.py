"""Stored numbers out of 32-bit words: rows of narrower types share a word on a TPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

if TYPE_CHECKING:
    from jaxtyping import Float, UInt

__all__ = ["from_words"]

_FLOAT8 = {"float8_e4m3fn": (3, 7), "float8_e5m2": (2, 15)}  # bits of mantissa, exponent's bias


def from_words(
    words: UInt[jax.Array, "keys lanes"], part: int, dtype: str
) -> Float[jax.Array, "keys lanes"]:
    """float32 of the rows that are the words' part ``part``; 0 is the lowest bits."""
    if dtype == "float32":
        return _float32(words)
    if dtype == "bfloat16":
        return _float32(words << 16 if part == 0 else words & jnp.uint32(0xFFFF0000))
    if dtype == "int8":
        signed = lax.bitcast_convert_type(words, jnp.int32) << (24 - 8 * part)
        return lax.shift_right_arithmetic(signed, jnp.int32(24)).astype(jnp.float32)
    return _float8((words >> (8 * part)) & jnp.uint32(0xFF), *_FLOAT8[dtype])


def _float8(
    codes: UInt[jax.Array, "keys lanes"], mantissa: int, bias: int
) -> Float[jax.Array, "keys lanes"]:
    """By moving the bits: what is below the normal numbers of float8 is a small integer."""
    size = codes & jnp.uint32(0x7F)
    normal = _float32((size << (23 - mantissa)) + jnp.uint32((127 - bias) << 23))
    units = lax.bitcast_convert_type(size, jnp.int32).astype(jnp.float32)
    small = units * jnp.float32(2.0 ** (1 - bias - mantissa))
    number = jnp.where(size < jnp.uint32(1 << mantissa), small, normal)
    return jnp.where(codes == size, number, -number)


def _float32(words: UInt[jax.Array, "keys lanes"]) -> Float[jax.Array, "keys lanes"]:
    return lax.bitcast_convert_type(words, jnp.float32)
