"""Caches of any layout as a backend moves their blocks: on the device, and to and from the host."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

__all__ = ["copy_blocks", "padded", "zeros_on_host"]

Cache = TypeVar("Cache")
"""A tree of arrays whose first axis are blocks."""


def zeros_on_host(
    make: Callable[..., Cache], *arguments: Any, devices: tuple[int, ...] = ()
) -> Cache:
    """What ``make(*arguments)`` makes on a device, of NumPy's arrays; ``devices`` come before."""
    shapes = jax.eval_shape(functools.partial(make, *arguments))
    zeros: Cache = jax.tree.map(lambda leaf: np.zeros((*devices, *leaf.shape), leaf.dtype), shapes)
    return zeros


def copy_blocks(src: Cache, dst: Cache, pairs: NDArray[np.int32], device: jax.Device) -> Cache:
    """Copy blocks ``pairs[i] = (from block in src, to block in dst)``. ``dst`` is dead."""
    from_blocks, to_blocks = padded(pairs).T
    blocks = jax.tree.map(lambda stored: _take(stored, from_blocks), src)
    targets = jax.tree.leaves(dst)
    if not isinstance(targets[0], np.ndarray):
        copied: Cache = _set_blocks(dst, *jax.device_put((blocks, to_blocks), device))
        return copied
    for target, taken in zip(targets, jax.tree.leaves(blocks), strict=True):
        target[to_blocks] = np.asarray(taken)
    return dst


def _take(stored: Any, blocks: NDArray[np.int32]) -> Any:
    """On the side where they lie."""
    return stored[blocks] if isinstance(stored, np.ndarray) else jnp.take(stored, blocks, axis=0)


@functools.partial(jax.jit, donate_argnums=0)
def _set_blocks(cache: Any, blocks: Any, places: jax.Array) -> Any:
    return jax.tree.map(lambda stored, new: stored.at[places].set(new), cache, blocks)


def padded(pairs: NDArray[np.int32]) -> NDArray[np.int32]:
    """The last pair repeated up to a power of two, so that few shapes are compiled."""
    num_pairs = 1 << (len(pairs) - 1).bit_length()
    return np.pad(pairs, ((0, num_pairs - len(pairs)), (0, 0)), mode="edge")
