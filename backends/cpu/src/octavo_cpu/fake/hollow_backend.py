"""The fake device that does not compute: it keeps books, and takes the time it is told to take."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo.api import BackendError, Capabilities, QuantizedTensor
from octavo_cpu.backend import NumpyBackend
from octavo_cpu.fake.clock import DeviceClock, with_latency
from octavo_cpu.fake.hollow import HollowArray, HollowLinear, HollowSample
from octavo_cpu.fake.memory import FakeMemory
from octavo_cpu.fake.ops import HollowOps
from octavo_cpu.fake.options import FakeOptions
from octavo_cpu.fake.tokens import TokenCache, TokenPlan, choose_tokens
from octavo_cpu.storage import dtype_named

if TYPE_CHECKING:
    from octavo.api import KVSpec, MemoryInfo, StepBatch

__all__ = ["HollowBackend"]

_DTYPES = ("bfloat16", "float16", "float32")


class HollowBackend:
    """``octavo.api.Backend`` over arrays that are shapes, and caches that hold token ids."""

    caps = Capabilities(
        dtypes=_DTYPES,
        kv_dtypes=(*_DTYPES, "float8_e4m3fn", "float8_e5m2", "int8"),
        block_sizes=NumpyBackend.caps.block_sizes,
        max_head_dim=NumpyBackend.caps.max_head_dim,
        sliding_window=True,
        soft_cap=True,
        sinks=True,
        batch_invariant=True,
        host_swap=True,
        reads_weights=False,
    )

    def __init__(self, index: int, options: FakeOptions) -> None:
        self._options = options
        self._memory = FakeMemory(options.memory_bytes, f"fake:{index}")
        self.ops = HollowOps()

    def memory(self) -> MemoryInfo:
        """What is free falls with every array, weight and cache that is alive."""
        return self._memory.info()

    def put(self, array: NDArray[Any], dtype: str | None = None) -> HollowArray:
        """The array's shape, and the array itself, which is not copied."""
        to_dtype = array.dtype if dtype is None else dtype_named(dtype)
        placed = HollowArray(array.shape, to_dtype, array)
        what = f"an array of shape {list(array.shape)} in {to_dtype.name}"
        self._memory.check(placed.nbytes, what)
        self._memory.take(placed, placed.nbytes)
        return placed

    def get(self, array: HollowArray | NDArray[Any]) -> NDArray[Any]:
        """What was put or sampled; zeros for what would have to be computed."""
        return array.numpy() if isinstance(array, HollowArray) else array

    def put_linear(
        self,
        weight: NDArray[Any] | QuantizedTensor | HollowArray,
        bias: NDArray[Any] | None,
        dtype: str,
    ) -> HollowLinear:
        """The weight's bytes are counted; one that ``put`` made takes no more."""
        if isinstance(weight, QuantizedTensor):
            raise BackendError(
                f"Backend 'fake' was handed a weight packed as {weight.scheme}; its capabilities "
                "name no packed scheme."
            )
        num_elements = 0 if isinstance(weight, HollowArray) else math.prod(weight.shape)
        num_elements += 0 if bias is None else bias.size
        num_bytes = num_elements * dtype_named(dtype).itemsize
        self._memory.check(num_bytes, f"a weight of shape {list(weight.shape)} in {dtype}")
        prepared = HollowLinear(weight.shape[0])
        self._memory.take(prepared, num_bytes)
        return prepared

    def make_kv(
        self, spec: KVSpec, num_blocks: int, block_size: int, *, on_host: bool = False
    ) -> TokenCache:
        """The bytes of keys and values are counted, save on the host; held are token ids."""
        num_bytes = 0 if on_host else num_blocks * block_size * spec.bytes_per_token
        what = f"a cache of {num_blocks} blocks"
        self._memory.check(num_bytes, what, block_size * spec.bytes_per_token, "blocks")
        cache = TokenCache(np.zeros((num_blocks, block_size), np.int32), spec.window)
        self._memory.take(cache, num_bytes)
        return cache

    def copy_blocks(self, src: TokenCache, dst: TokenCache, pairs: NDArray[np.int32]) -> TokenCache:
        """Copy token ids."""
        dst.tokens[pairs[:, 1]] = src.tokens[pairs[:, 0]]
        return dst

    def plan(self, batch: StepBatch, block_size: int) -> Sequence[TokenPlan]:
        """The host batch, once for each group."""
        del block_size
        return [TokenPlan(batch, group) for group in range(len(batch.groups))]

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step, which yields shapes; then the tokens, and the time it takes."""

        @functools.wraps(step)
        def with_tokens(
            weights: Any, caches: Any, batch: Any, plans: Any, sampling: Any, *rest: Any
        ) -> Any:
            caches, sampled, prompt = step(weights, caches, batch, plans, sampling, *rest)
            if isinstance(sampled, HollowSample):
                sampled = choose_tokens(caches, plans, sampling, sampled.vocab_size)
            return caches, sampled, prompt

        return with_latency(with_tokens, self._options, DeviceClock())

    def close(self) -> None:
        """Nothing to release."""
