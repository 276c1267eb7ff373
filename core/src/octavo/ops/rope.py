"""Rotary position embedding over an array namespace: the cos/sin table and the rotation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octavo.ops.arrays import device_of

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from octavo.ops.arrays import Array, Namespace
    from octavo.ops.protocol import RopeSpec

__all__ = ["rope", "rope_table"]


def rope_table(
    xp: Namespace,
    positions: Int[Array, "tokens"],
    context_lens: Int[Array, "tokens"],
    spec: RopeSpec,
) -> tuple[Float[Array, "tokens half"], Float[Array, "tokens half"]]:
    """(cos, sin) of each token's angles, times the spec's attention factor, in float32."""
    inverse_frequencies = _inverse_frequencies(xp, context_lens, spec)
    angles = xp.astype(positions, xp.float32)[:, None] * inverse_frequencies
    return xp.cos(angles) * spec.attention_factor, xp.sin(angles) * spec.attention_factor


def _inverse_frequencies(
    xp: Namespace, context_lens: Int[Array, "tokens"], spec: RopeSpec
) -> Float[Array, "rows half"]:
    """Radians per position: one row for every token, or one per token where the length counts."""
    short = _constant_row(xp, spec.inv_freq, context_lens)
    if spec.kind == "longrope" and spec.long_inv_freq is not None:
        long = _constant_row(xp, spec.long_inv_freq, context_lens)
    elif spec.kind == "dynamic":
        long = _dynamic_inverse_frequencies(xp, context_lens, spec)
    else:
        return short
    return xp.where((context_lens > spec.original_max_len)[:, None], long, short)


def _dynamic_inverse_frequencies(
    xp: Namespace, context_lens: Int[Array, "tokens"], spec: RopeSpec
) -> Float[Array, "tokens half"]:
    """NTK-aware scaling: the base grows with the context length beyond the trained one.

    As ``_compute_dynamic_ntk_parameters`` in transformers' modeling_rope_utils.
    """
    dim = spec.rotary_dim
    trained = xp.full_like(context_lens, spec.original_max_len)
    lengths = xp.astype(xp.maximum(context_lens, trained), xp.float32)
    stretch = spec.factor * lengths / spec.original_max_len - (spec.factor - 1.0)
    bases = spec.base * stretch ** (dim / (dim - 2))
    exponents = _constant_row(xp, tuple(-i / dim for i in range(0, dim, 2)), context_lens)
    return bases[:, None] ** exponents


def _constant_row(
    xp: Namespace, values: tuple[float, ...], like: Int[Array, "tokens"]
) -> Float[Array, "1 size"]:
    return xp.asarray(values, dtype=xp.float32, device=device_of(like))[None, :]


def rope(
    xp: Namespace,
    x: Float[Array, "tokens heads head_dim"],
    cos: Float[Array, "tokens half"],
    sin: Float[Array, "tokens half"],
) -> Float[Array, "tokens heads head_dim"]:
    """Rotate features i and i + half of each head; features from 2 * half on pass unchanged."""
    half = cos.shape[1]
    cos, sin = cos[:, None, :], sin[:, None, :]
    first = xp.astype(x[:, :, :half], xp.float32)
    second = xp.astype(x[:, :, half : 2 * half], xp.float32)
    rotated = xp.concat([first * cos - second * sin, second * cos + first * sin], axis=-1)
    rotated = xp.astype(rotated, x.dtype)
    if 2 * half == x.shape[2]:
        return rotated
    return xp.concat([rotated, x[:, :, 2 * half :]], axis=-1)
