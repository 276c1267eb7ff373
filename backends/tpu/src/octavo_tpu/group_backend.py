"""The members of a backend whose devices share every model that is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from octavo.api import PortableLinear
from octavo_tpu.backend import JaxBackend, memory_of
from octavo_tpu.cache_blocks import padded, zeros_on_host
from octavo_tpu.caches import XlaCache, make_xla_cache
from octavo_tpu.group import DeviceGroup
from octavo_tpu.kernels.layout import RowCache, make_cache
from octavo_tpu.ops import JaxOps
from octavo_tpu.programs import Program
from octavo_tpu.shares import SharedLinear, SharedVector, group_ops

if TYPE_CHECKING:
    from octavo.api import KVSpec, LinearWeight, MemoryInfo, QuantizedTensor
    from octavo_tpu.options import JaxOptions
    from octavo_tpu.processes import Processes

__all__ = ["GroupBackend"]


class GroupBackend(JaxBackend):
    """``octavo.api.Backend`` and ``WeightShards`` on a DeviceGroup.

    Swap space has a first axis more, over the devices.
    """

    def __init__(
        self,
        devices: Sequence[jax.Device],
        options: JaxOptions,
        processes: Processes | None = None,
    ) -> None:
        """``processes`` are those that have the devices, where it is not this one alone."""
        super().__init__(devices[0], options)
        self.ops = group_ops(JaxOps)(devices[0].platform)
        self.caps = dataclasses.replace(self.caps, decode_buckets=())
        self.group = DeviceGroup(tuple(devices))
        if processes is not None:
            self.num_processes = processes.num_processes
            self.process_index = processes.process_index
            self.send, self.receive = processes.send, processes.receive
            self.caps = dataclasses.replace(
                self.caps, asynchronous=False, host_swap=False, separate_sampling=False
            )
        self._take = jax.jit(self.spread(_take))
        write = self.spread(_write)
        self._write = jax.jit(
            lambda rows, cache, blocks: write((), (cache, rows), blocks), donate_argnums=1
        )

    def memory(self) -> MemoryInfo:
        """That of the device with the least, of those that are here."""
        here = jax.process_index()
        own = [device for device in self.group.devices if device.process_index == here]
        return min((memory_of(device) for device in own), key=lambda info: info.free_bytes)

    def put(self, array: NDArray[Any], dtype: str | None = None) -> jax.Array:
        """On every device."""
        return self.group.place(array, dtype)

    def put_all(self, arrays: Sequence[NDArray[Any]]) -> list[jax.Array]:
        """A step's inputs, on every device."""
        return list(self.group.place_all(arrays))

    def put_vector_shards(self, vector: NDArray[Any], dtype: str | None = None) -> SharedVector:
        """The weight of a norm, divided."""
        return SharedVector(self.group.place(vector, dtype, axis=0))

    def put_linear_shards(
        self,
        weight: NDArray[Any] | QuantizedTensor,
        bias: NDArray[Any] | None,
        dtype: str,
        axis: str,
    ) -> LinearWeight:
        """Rows or columns of a weight, each device's sent to it alone."""
        along = 0 if axis == "out" else 1
        placed = self.group.place(np.asarray(weight), dtype, axis=along)
        shared_bias = None
        if bias is not None:
            shared_bias = self.group.place(bias, dtype, axis=0 if axis == "out" else None)
        return SharedLinear(PortableLinear(placed), shared_bias, axis)

    def make_kv(
        self, spec: KVSpec, num_blocks: int, block_size: int, *, on_host: bool = False
    ) -> Any:
        """A cache on each device, for the KV heads that ``spec`` says one keeps."""
        make = make_cache if self.keeps_rows else make_xla_cache
        if not on_host:
            return self.group.make(make, spec, num_blocks, block_size)
        devices = (len(self.group.devices),)
        return zeros_on_host(make, spec, num_blocks, block_size, devices=devices)

    def copy_blocks(self, src: Any, dst: Any, pairs: NDArray[np.int32]) -> Any:
        """On each device for itself; by way of the host where one of the caches is there."""
        if not len(pairs):
            return dst
        from_blocks, to_blocks = padded(pairs).T
        devices = len(self.group.devices)
        if _is_on_host(src):
            rows = jax.tree.map(
                lambda stored: self.group.place(
                    stored[:, from_blocks].reshape(-1, *stored.shape[2:]), axis=0
                ),
                src,
            )
        else:
            rows = self._take((), (src,), self.put(np.ascontiguousarray(from_blocks)))
        if not _is_on_host(dst):
            return self._write(rows, dst, self.put(np.ascontiguousarray(to_blocks)))
        for stored, taken in zip(jax.tree.leaves(dst), jax.tree.leaves(rows), strict=True):
            stored[:, to_blocks] = np.asarray(taken).reshape(devices, -1, *stored.shape[2:])
        return dst

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A program for each shape, which all devices run together."""
        return Program(self.spread(step), lambda: self._is_serving)

    def spread(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step on all devices, to be jitted."""
        return self.group.spread(step, lambda tree: isinstance(tree, XlaCache | RowCache))


def _is_on_host(cache: Any) -> bool:
    return isinstance(jax.tree.leaves(cache)[0], np.ndarray)


def _take(_weights: Any, caches: tuple[Any], blocks: jax.Array) -> Any:
    """Some blocks of a cache, as a cache of just these."""
    return jax.tree.map(lambda stored: jnp.take(stored, blocks, axis=0), caches[0])


def _write(_weights: Any, caches: tuple[Any, Any], blocks: jax.Array) -> Any:
    """A cache with some of its blocks replaced by those of the other."""
    cache, rows = caches
    return jax.tree.map(lambda stored, taken: stored.at[blocks].set(taken), cache, rows)
