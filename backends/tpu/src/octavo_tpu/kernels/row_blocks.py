"""Caches of rows as a backend makes them and moves their blocks: on the device, and on the host."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from octavo_tpu.kernels.layout import KVLayout, RowCache, make_cache

if TYPE_CHECKING:
    from octavo.api import KVSpec

__all__ = ["copy_row_blocks", "make_rows"]


def make_rows(
    spec: KVSpec, num_blocks: int, block_size: int, device: jax.Device, *, on_host: bool
) -> RowCache:
    """Zeros; swap space is NumPy's."""
    if not on_host:
        with jax.default_device(device):
            return make_cache(spec, num_blocks, block_size)
    layout = KVLayout(spec.num_kv_heads, spec.head_dim, spec.dtype)
    shapes = jax.eval_shape(functools.partial(make_cache, spec, num_blocks, block_size))
    rows, scales = (
        None if part is None else np.zeros(part.shape, part.dtype) for part in _parts(shapes)
    )
    return _cache(rows, scales, layout)


def copy_row_blocks(
    src: RowCache, dst: RowCache, pairs: NDArray[np.int32], device: jax.Device
) -> RowCache:
    """Copy blocks ``pairs[i] = (from block in src, to block in dst)``. ``dst`` is dead."""
    from_blocks, to_blocks = pairs.T
    copied: list[Any] = []
    for stored, target in zip(_parts(src), _parts(dst), strict=True):
        if stored is None:
            copied.append(None)
            continue
        blocks = stored[from_blocks]
        if isinstance(target, np.ndarray):
            target[to_blocks] = np.asarray(blocks)
            copied.append(target)
        else:
            copied.append(_set_blocks(target, *jax.device_put([blocks, to_blocks], device)))
    rows, scales = copied
    return _cache(rows, scales, dst.layout)


def _parts(cache: Any) -> Iterable[Any]:
    return cache.rows, cache.scales


def _cache(rows: Any, scales: Any, layout: KVLayout) -> RowCache:
    return RowCache(rows, scales, layout.kv_heads, layout.head_dim)


@functools.partial(jax.jit, donate_argnums=0)
def _set_blocks(stored: jax.Array, blocks: jax.Array, places: jax.Array) -> jax.Array:
    return jnp.asarray(stored).at[places].set(blocks)
