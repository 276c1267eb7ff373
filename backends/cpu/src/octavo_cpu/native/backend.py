"""The native backend: compiled kernels over the host's memory, a step in one call of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from octavo.api import Capabilities, DeviceError, MemoryInfo, QuantizedTensor, host_memory
from octavo_cpu.cores import num_usable_cores
from octavo_cpu.native.caches import (
    BLOCK_SIZES,
    KV_ELEMENTS,
    SCALE_BYTES,
    NativeCache,
    copy_blocks,
    make_cache,
)
from octavo_cpu.native.compiled import CompiledFunction
from octavo_cpu.native.library import Context, PackedLinear
from octavo_cpu.native.ops import NativeOps
from octavo_cpu.native.options import NativeOptions
from octavo_cpu.native.plan import NativePlan, make_plan, make_scratch
from octavo_cpu.native.weights import DTYPES, QUANTIZATION, pack
from octavo_cpu.storage import dtype_named

if TYPE_CHECKING:
    from octavo.api import KVSpec, StepBatch

__all__ = ["NativeBackend"]

Array: TypeAlias = Any  # a NumPy array: the contract leaves the type to the backend


class NativeBackend:
    """``octavo.api.Backend`` on the CPU: what is put to the device stays where it is."""

    caps = Capabilities(
        dtypes=tuple(DTYPES),
        kv_dtypes=tuple(KV_ELEMENTS),
        block_sizes=BLOCK_SIZES,
        max_head_dim=256,
        sliding_window=True,
        soft_cap=True,
        sinks=True,
        quantization=QUANTIZATION,
        batch_invariant=True,
        host_swap=True,
        separate_sampling=True,
        int8_scale_bytes=SCALE_BYTES,
    )

    def __init__(self, index: int, options: Mapping[str, Any]) -> None:
        if index != 0:
            raise DeviceError(f"There is no device cpu:{index}; the CPU is one device, cpu:0.")
        parsed = NativeOptions.parse(options)
        self.threads = parsed.threads or num_usable_cores()
        self._context = Context(self.threads, parsed.variant)
        # NumPy's products, if a plugin computes any, must not take the cores from our threads.
        self._limits = threadpoolctl.threadpool_limits(1, user_api="blas")
        self._scratch = make_scratch()
        self.ops = NativeOps(self._context)

    def memory(self) -> MemoryInfo:
        """Of the machine, or of the control group that confines this process."""
        return host_memory()

    def put(self, array: NDArray[Any], dtype: str | None = None) -> Array:
        """The array itself, unless its dtype is to change or its rows are not in one piece."""
        placed = array if dtype is None else array.astype(dtype_named(dtype), copy=False)
        return placed if placed.flags.c_contiguous else np.ascontiguousarray(placed)

    def get(self, array: Array) -> NDArray[Any]:
        """The array itself: a step's results are its own."""
        host: NDArray[Any] = array
        return host

    def put_linear(
        self,
        weight: NDArray[Any] | QuantizedTensor | Array,
        bias: NDArray[Any] | None,
        dtype: str,
    ) -> PackedLinear:
        """The weight in the kernels' layout; one that ``put`` made is copied."""
        return pack(self._context, weight, bias, dtype)

    def make_kv(
        self, spec: KVSpec, num_blocks: int, block_size: int, *, on_host: bool = False
    ) -> NativeCache:
        """Zeros, which take no memory until written; device and host are the same place."""
        del on_host
        return make_cache(spec, num_blocks, block_size)

    def copy_blocks(
        self, src: NativeCache, dst: NativeCache, pairs: NDArray[np.int32]
    ) -> NativeCache:
        """Copy blocks in place in ``dst``."""
        return copy_blocks(src, dst, pairs)

    def plan(self, batch: StepBatch, block_size: int) -> Sequence[NativePlan]:
        """What the attention kernels read, once for all layers of a group."""
        return [
            make_plan(batch, group, block_size, num_threads=self.threads, scratch=self._scratch)
            for group in batch.groups
        ]

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step, recorded when it is first called and then replayed for steps of any size."""
        return CompiledFunction(self._context, step)

    def close(self) -> None:
        """End the threads and give BLAS its own thread count back."""
        self._context.close()
        self._limits.restore_original_limits()
