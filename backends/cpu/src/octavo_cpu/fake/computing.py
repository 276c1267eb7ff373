"""The fake device that computes: NumPy's numbers, and a memory of its own."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo_cpu.backend import NumpyBackend
from octavo_cpu.fake.clock import DeviceClock, with_latency
from octavo_cpu.fake.memory import FakeMemory
from octavo_cpu.fake.options import FakeOptions
from octavo_cpu.storage import NumpyCache, NumpyLinear, dtype_named

if TYPE_CHECKING:
    from octavo.api import KVSpec, MemoryInfo, QuantizedTensor

__all__ = ["ComputingBackend", "MeasuredBackend"]


class ComputingBackend(NumpyBackend):
    """Host and device are apart: what crosses is copied, and takes memory where it arrives."""

    def __init__(self, index: int, options: FakeOptions) -> None:
        super().__init__(0, {})
        self._options = options
        self._memory = FakeMemory(options.memory_bytes, f"fake:{index}")
        self._clock = DeviceClock()
        self.caps = replace(NumpyBackend.caps, asynchronous=options.asynchronous)

    def memory(self) -> MemoryInfo:
        """What is free falls with every array, weight and cache that is alive."""
        return self._memory.info()

    def put(self, array: NDArray[Any], dtype: str | None = None) -> Any:
        """A copy."""
        to_dtype = array.dtype if dtype is None else dtype_named(dtype)
        num_bytes = array.size * to_dtype.itemsize
        self._memory.check(num_bytes, f"an array of shape {list(array.shape)} in {to_dtype.name}")
        placed = super().put(np.array(array, to_dtype))
        self._memory.take(placed, num_bytes)
        return placed

    def get(self, array: Any) -> NDArray[Any]:
        """A copy, once the device has done what is queued."""
        (copied,) = self.fetch([array])()
        return copied

    def put_all(self, arrays: Sequence[NDArray[Any]]) -> list[Any]:
        """Each by itself."""
        return [self.put(array) for array in arrays]

    def fetch(self, arrays: Sequence[Any]) -> Callable[[], list[NDArray[Any]]]:
        """Copies, there once the device has done what is queued now."""
        wait, copies = self._clock.waiter(), [np.array(array) for array in arrays]

        def result() -> list[NDArray[Any]]:
            wait()
            return copies

        return result

    def put_linear(
        self,
        weight: NDArray[Any] | QuantizedTensor | Any,
        bias: NDArray[Any] | None,
        dtype: str,
    ) -> NumpyLinear:
        """Counted as ``dtype`` stores it; a table that is on the device already takes no more."""
        is_here = self._tables.get(id(weight)) is weight
        itemsize = dtype_named(dtype).itemsize
        num_bytes = 0 if is_here else int(np.prod(weight.shape)) * itemsize
        num_bytes += 0 if bias is None else bias.size * itemsize
        self._memory.check(num_bytes, f"a weight of shape {list(weight.shape)} in {dtype}")
        prepared = super().put_linear(weight, bias, dtype)
        self._memory.take(prepared, num_bytes)
        return prepared

    def make_kv(
        self, spec: KVSpec, num_blocks: int, block_size: int, *, on_host: bool = False
    ) -> NumpyCache:
        """On the host a cache takes no memory of the device."""
        num_bytes = 0 if on_host else num_blocks * block_size * spec.bytes_per_token
        what = f"a cache of {num_blocks} blocks"
        self._memory.check(num_bytes, what, block_size * spec.bytes_per_token, "blocks")
        cache = super().make_kv(spec, num_blocks, block_size, on_host=on_host)
        self._memory.take(cache, num_bytes)
        return cache

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step, in the time that the options give it."""
        return with_latency(super().compile(step), self._options, self._clock)


class MeasuredBackend(ComputingBackend):
    """What a step takes is what NumPy takes for it; the device's count does not hold it."""

    def peak_bytes(self, run: Callable[[], object]) -> int:
        """``octavo.api.MemoryMeter``: by Python's own record of what is allocated."""
        was_tracing = tracemalloc.is_tracing()
        if not was_tracing:
            tracemalloc.start()
        try:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            run()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            if not was_tracing:
                tracemalloc.stop()
        return max(0, peak - before)
