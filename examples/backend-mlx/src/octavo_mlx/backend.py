"""The MLX backend: a lazy framework behind Octavo's contract.

MLX computes nothing until somebody asks for a value, and an array that is still to be computed
belongs to the thread that asked for it. So each member evaluates what it returns: then a step may
run in any thread, and the graph of one step does not hang on to that of the step before.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from octavo.api import (
    Capabilities,
    DeviceError,
    KVSpec,
    MemoryInfo,
    PortableBackend,
    PortableCache,
    UsageError,
    host_memory,
)
from octavo_mlx.ops import MlxOps

__all__ = ["MlxBackend"]

_DTYPES = ("float32", "bfloat16", "float16")


class MlxBackend(PortableBackend):
    """``octavo.api.Backend`` on MLX's default device."""

    caps = Capabilities(
        dtypes=_DTYPES,
        kv_dtypes=_DTYPES,
        block_sizes=(16, 32, 8, 4),
        sliding_window=True,
        soft_cap=True,
        sinks=True,
        host_swap=True,
    )

    def __init__(self, index: int, options: Mapping[str, Any]) -> None:
        if index != 0:
            raise DeviceError(f"There is no device mlx:{index}; MLX has one device, mlx:0.")
        if options:
            raise UsageError(
                f"Backend 'mlx' has no options, but was given {', '.join(map(str, options))}. "
                "Mend [options.mlx] in plugins.toml."
            )
        super().__init__(MlxOps())

    def memory(self) -> MemoryInfo:
        """The host's, and what MLX holds ready for its next arrays."""
        host = host_memory()
        return dataclasses.replace(host, free_bytes=host.free_bytes + mx.get_cache_memory())

    def put(self, array: NDArray[Any], dtype: str | None = None) -> mx.array:
        """A copy; converted on the host, where nothing is lazy."""
        target = array.dtype if dtype is None else _numpy_dtype(dtype)
        return mx.array(np.asarray(array, target, order="C"))  # MLX takes no negative strides

    def get(self, array: Any) -> NDArray[Any]:
        """A view of MLX's memory."""
        if array.dtype == mx.bfloat16:  # NumPy's buffer protocol does not know it
            return np.asarray(array.view(mx.uint16)).view(ml_dtypes.bfloat16)
        return np.asarray(array)

    def make_kv(
        self, spec: KVSpec, num_blocks: int, block_size: int, *, on_host: bool = False
    ) -> PortableCache:
        """Zeros, and they are there."""
        cache = super().make_kv(spec, num_blocks, block_size, on_host=on_host)
        if not on_host:
            mx.eval(cache.k, cache.v)
        return cache

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step, and then its results computed.

        Without that the caches would be an ever longer sum of promises. ``mx.compile`` is not for
        steps: it takes no dataclasses, and traces anew for each shape of batch.
        """

        @functools.wraps(step)
        def evaluated(*args: Any, **kwargs: Any) -> Any:
            results = step(*args, **kwargs)
            mx.eval(list(_arrays_in(results)))
            return results

        return evaluated

    def close(self) -> None:
        """Give memory back that MLX held ready."""
        mx.clear_cache()


def _numpy_dtype(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def _arrays_in(tree: Any) -> Iterator[mx.array]:
    """The arrays of a step's results: dataclasses and tuples, with None for what is absent."""
    if isinstance(tree, mx.array):
        yield tree
    elif isinstance(tree, tuple):
        for branch in tree:
            yield from _arrays_in(branch)
    elif dataclasses.is_dataclass(tree):
        yield from _arrays_in(tuple(vars(tree).values()))
