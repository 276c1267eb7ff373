"""The JAX backend on one device: programs of few shapes, and caches that are given away."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from octavo.api import (
    BackendError,
    MemoryInfo,
    PortableLinear,
    QuantizedTensor,
    each_step_tree,
    host_memory,
)
from octavo_tpu.cache_blocks import copy_blocks, zeros_on_host
from octavo_tpu.caches import make_xla_cache
from octavo_tpu.capabilities import capabilities
from octavo_tpu.compilation_cache import keep_programs
from octavo_tpu.cpu_products import TurnedLinear
from octavo_tpu.kernels.layout import KVLayout, make_cache
from octavo_tpu.ops import JaxOps
from octavo_tpu.options import JaxOptions
from octavo_tpu.plan import XlaPlan, make_plan
from octavo_tpu.programs import Program
from octavo_tpu.untouched_memory import untouched_zeros

if TYPE_CHECKING:
    from octavo.api import KVSpec, LinearWeight, StepBatch

__all__ = ["JaxBackend", "memory_of"]

Array: TypeAlias = Any  # a jax.Array
_LEAST_COLUMNS = 8

each_step_tree(jax.tree_util.register_dataclass)  # jit takes no other dataclasses


class JaxBackend:
    """``octavo.api.Backend`` on one of JAX's devices."""

    def __init__(self, device: jax.Device, options: JaxOptions) -> None:
        self.device = device
        self.options = options
        self.ops = JaxOps(device.platform)
        self.caps = capabilities(options)
        self.keeps_rows = False
        """Whether caches are those of the TPU's kernels; what serves attention sets it first."""
        self._is_serving = False
        self._num_columns = _LEAST_COLUMNS
        keep_programs(options.compilation_cache)

    def memory(self) -> MemoryInfo:
        """The device's own; on the CPU the host's."""
        return memory_of(self.device)

    def put(self, array: NDArray[Any], dtype: str | None = None) -> Array:
        """On the device, converted before it is sent where that makes it smaller."""
        converted = array if dtype is None else array.astype(jnp.dtype(dtype), copy=False)
        return jax.device_put(converted, self.device)

    def put_all(self, arrays: Sequence[NDArray[Any]]) -> list[Array]:
        """As they are: a program takes them along in one piece."""
        return list(arrays)

    def get(self, array: Array) -> NDArray[Any]:
        """The array in host memory."""
        return np.array(array)

    def fetch(self, arrays: Sequence[Array]) -> Callable[[], list[NDArray[Any]]]:
        """Begin to copy; the function waits for these alone."""
        for array in arrays:
            array.copy_to_host_async()
        return lambda: [np.asarray(array) for array in arrays]

    def put_linear(
        self,
        weight: NDArray[Any] | QuantizedTensor | Array,
        bias: NDArray[Any] | None,
        dtype: str,
    ) -> LinearWeight:
        """The weight in the form that is read fastest; one that ``put`` made is shared."""
        if isinstance(weight, QuantizedTensor):
            raise BackendError(
                f"Backend 'jax' takes no packed weights, and was given one in {weight.scheme!r}."
            )
        placed_bias = None if bias is None else self.put(bias, dtype)
        if not isinstance(weight, np.ndarray):
            return PortableLinear(weight, placed_bias)
        if dtype == "float32" and self.device.platform == "cpu":
            return TurnedLinear(self.put(np.ascontiguousarray(weight.T), dtype), placed_bias)
        return PortableLinear(self.put(weight, dtype), placed_bias)

    def make_kv(
        self, spec: KVSpec, num_blocks: int, block_size: int, *, on_host: bool = False
    ) -> Any:
        """Zeros; swap space is NumPy's."""
        make = make_cache if self.keeps_rows else make_xla_cache
        if on_host:
            return zeros_on_host(make, spec, num_blocks, block_size)
        if make is make_xla_cache and self.device.platform == "cpu":
            make = functools.partial(make_xla_cache, zeros=untouched_zeros)
        with jax.default_device(self.device):
            return make(spec, num_blocks, block_size)

    def kv_bytes_per_token(self, spec: KVSpec) -> int:
        """See ``octavo.api.CacheMeter``: on TPUs rows are padded, by XLA as by our kernels."""
        if self.keeps_rows or self.device.platform == "tpu":
            return KVLayout(spec.num_kv_heads, spec.head_dim, spec.dtype).bytes_per_token()
        scales = 2 * spec.num_kv_heads if spec.dtype == "int8" else 0
        return spec.bytes_per_token + scales * self.caps.int8_scale_bytes

    def copy_blocks(self, src: Any, dst: Any, pairs: NDArray[np.int32]) -> Any:
        """Gather, move between host and device where they differ, scatter."""
        return copy_blocks(src, dst, pairs, self.device) if len(pairs) else dst

    def plan(self, batch: StepBatch, block_size: int) -> Sequence[XlaPlan]:
        """One for each KV group, on the host: ``put_all`` moves it.

        Its block table is as wide as any has been, so that a context that grows compiles nothing.
        """
        del block_size
        widths = (group.block_table.shape[1] for group in batch.groups)
        needed = 1 << max(max(widths, default=1) - 1, 0).bit_length()
        self._num_columns = max(self._num_columns, needed)
        columns = self._num_columns
        return [make_plan(batch, group, columns, lambda array: array) for group in batch.groups]

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A program for each shape."""
        return Program(step, lambda: self._is_serving, self.device)

    def ready(self) -> None:
        """From now on requests wait for whatever is compiled."""
        self._is_serving = True

    def close(self) -> None:
        """Nothing to release: arrays go with their last reference."""


def memory_of(device: jax.Device) -> MemoryInfo:
    """What JAX says of it, or the host's where it says nothing."""
    facts = None if device.platform == "cpu" else device.memory_stats()
    if not facts or "bytes_limit" not in facts:
        return host_memory()
    total_bytes = int(facts["bytes_limit"])
    return MemoryInfo(total_bytes - int(facts["bytes_in_use"]), total_bytes)
