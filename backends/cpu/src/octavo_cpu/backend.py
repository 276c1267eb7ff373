"""The NumPy backend: host memory is device memory, and a step is a plain function call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakValueDictionary

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from octavo.api import (
    BackendError,
    Capabilities,
    DeviceError,
    MemoryInfo,
    QuantizedTensor,
    host_memory,
)
from octavo_cpu.ops import NumpyOps
from octavo_cpu.options import NumpyOptions
from octavo_cpu.plan import NumpyPlan, make_plan
from octavo_cpu.storage import NumpyCache, NumpyLinear, dtype_named
from octavo_cpu.threads import blas_threads

if TYPE_CHECKING:
    from octavo.api import KVSpec, StepBatch

__all__ = ["NumpyBackend"]

Array: TypeAlias = Any  # a NumPy array: the contract leaves the type to the backend

_DTYPES = ("float32", "bfloat16", "float16")


class NumpyBackend:
    """``octavo.api.Backend`` on the CPU.

    Weights are held as float32 whatever the compute dtype, because BLAS knows no other; results
    are rounded to the compute dtype. So float32 is the fastest, and the others are for parity.
    """

    caps = Capabilities(
        dtypes=_DTYPES,
        kv_dtypes=(*_DTYPES, "float8_e4m3fn", "float8_e5m2"),
        block_sizes=(16, 32, 64, 128, 8, 4, 2, 1),
        max_head_dim=1024,
        sliding_window=True,
        soft_cap=True,
        sinks=True,
        host_swap=True,
        separate_sampling=True,
    )

    def __init__(self, index: int, options: Mapping[str, Any]) -> None:
        if index != 0:
            raise DeviceError(f"There is no device cpu:{index}; the CPU is one device, cpu:0.")
        self.threads = NumpyOptions.parse(options).threads or blas_threads()
        # Octavo's own threads share the work; BLAS's would wait for each other (see Workers).
        self._limits = threadpoolctl.threadpool_limits(1, user_api="blas")
        self.ops = NumpyOps(self.threads)
        self._tables: WeakValueDictionary[int, NDArray[Any]] = WeakValueDictionary()

    def memory(self) -> MemoryInfo:
        """Of the machine, or of the control group that confines this process."""
        return host_memory()

    def put(self, array: NDArray[Any], dtype: str | None = None) -> Array:
        """The array itself, unless its dtype is to change."""
        placed = array if dtype is None else array.astype(dtype_named(dtype), copy=False)
        if placed.ndim == 2:
            self._tables[id(placed)] = placed
        return placed

    def get(self, array: Array) -> NDArray[Any]:
        """The array itself."""
        host: NDArray[Any] = array
        return host

    def put_linear(
        self,
        weight: NDArray[Any] | QuantizedTensor | Array,
        bias: NDArray[Any] | None,
        dtype: str,
    ) -> NumpyLinear:
        """A weight rounded to ``dtype`` and held as float32; one that ``put`` made is shared."""
        if isinstance(weight, QuantizedTensor):
            raise BackendError(
                f"Backend 'numpy' was handed a weight packed as {weight.scheme}; its "
                "capabilities name no packed scheme, so the weight must be dequantised first."
            )
        rounded = weight.astype(dtype_named(dtype), copy=False)
        is_table = self._tables.get(id(weight)) is weight
        if is_table and rounded is weight and rounded.dtype == np.float32:
            matrix = rounded.T
        else:
            matrix = np.ascontiguousarray(rounded.T, np.float32)
        if bias is not None:
            bias = bias.astype(dtype_named(dtype), copy=False).astype(np.float32)
        return NumpyLinear(matrix, bias)

    def make_kv(
        self, spec: KVSpec, num_blocks: int, block_size: int, *, on_host: bool = False
    ) -> NumpyCache:
        """Zeros, which take no memory until written; device and host are the same place."""
        del on_host
        shape = (num_blocks, block_size, spec.num_kv_heads, spec.head_dim)
        dtype = dtype_named(spec.dtype)
        return NumpyCache(k=np.zeros(shape, dtype), v=np.zeros(shape, dtype))

    def copy_blocks(self, src: NumpyCache, dst: NumpyCache, pairs: NDArray[np.int32]) -> NumpyCache:
        """Copy blocks in place in ``dst``."""
        from_blocks, to_blocks = pairs[:, 0], pairs[:, 1]
        dst.k[to_blocks] = src.k[from_blocks]
        dst.v[to_blocks] = src.v[from_blocks]
        return dst

    def plan(self, batch: StepBatch, block_size: int) -> Sequence[NumpyPlan]:
        """Which keys each sequence reads, and from where, once for all layers of a group."""
        self.ops.start_step(len(batch.token_ids))
        return [make_plan(batch, group, block_size) for group in batch.groups]

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step as it is."""
        return step

    def close(self) -> None:
        """Stop the threads and give BLAS its own thread count back."""
        self.ops.close()
        self._limits.restore_original_limits()
