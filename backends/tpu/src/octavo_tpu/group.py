"""Devices that share a model: where its weights and caches lie, and how all run one step.

Arrays are global: one ``jax.Array`` whose pieces lie on the devices. Within a step each device
sees its own piece, as ``jax.shard_map`` has it, and models run as if there were no other device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from octavo_tpu.shares import AXIS, share_specs

__all__ = ["DeviceGroup"]

_EVERYWHERE = PartitionSpec()
_OWN = PartitionSpec(AXIS)  # the first axis is divided


@dataclass(frozen=True)
class DeviceGroup:
    """The devices in the order of their shares; they may belong to several processes."""

    devices: tuple[jax.Device, ...]

    @cached_property
    def mesh(self) -> Mesh:
        """One axis over all devices."""
        return Mesh(np.array(self.devices), (AXIS,))

    def place(
        self, array: NDArray[Any], dtype: Any = None, *, axis: int | None = None
    ) -> jax.Array:
        """A host array on every device, or divided equally among them along ``axis``."""
        spec = _EVERYWHERE if axis is None else PartitionSpec(*[None] * axis, AXIS)
        kept_dtype = array.dtype if dtype is None else dtype
        return jax.make_array_from_callback(
            array.shape,
            NamedSharding(self.mesh, spec),
            lambda index: np.asarray(array[index], kept_dtype),
        )

    def place_all(self, arrays: Sequence[NDArray[Any]]) -> Sequence[jax.Array]:
        """Host arrays on every device, in one call where all belong to this process."""
        everywhere = NamedSharding(self.mesh, _EVERYWHERE)
        if not everywhere.is_fully_addressable:
            return [self.place(array) for array in arrays]
        placed: Sequence[jax.Array] = jax.device_put(list(arrays), everywhere)
        return placed

    def make(self, make: Callable[..., Any], *arguments: Any) -> Any:
        """The arrays of a cache, which each device makes for itself: ``make(*arguments)``.

        Globally they stand one behind the other along the first axis, whatever that means.
        """
        return _maker(self, make, arguments)()

    def spread(
        self, step: Callable[..., Any], is_cache: Callable[[Any], bool]
    ) -> Callable[..., Any]:
        """``step(weights, caches, *inputs)`` as all devices run it together, to be jitted.

        It returns as many caches as it takes, in their order, or none. All else that it returns
        has to be alike on every device, as what follows from sums over the group is.
        """

        @functools.wraps(step)
        def together(weights: Any, caches: Any, *inputs: Any) -> Any:
            structure, are_caches = None, []

            def alone(*arguments: Any) -> tuple[list[Any], list[Any]]:
                nonlocal structure, are_caches
                results, structure = jax.tree.flatten(step(*arguments), is_leaf=is_cache)
                are_caches = [is_cache(result) for result in results]
                own = [result for result in results if is_cache(result)]
                return own, [result for result in results if not is_cache(result)]

            run = jax.shard_map(
                alone,
                mesh=self.mesh,
                in_specs=(share_specs(weights), _OWN, *[_EVERYWHERE] * len(inputs)),
                out_specs=(_OWN, _EVERYWHERE),
                check_vma=False,  # that devices sample alike is more than can be inferred
            )
            own, alike = map(iter, run(weights, caches, *inputs))
            results = [next(own) if is_own else next(alike) for is_own in are_caches]
            return jax.tree.unflatten(structure, results)

        return together


@functools.cache  # layers have caches of few shapes, and each is a program to compile
def _maker(
    group: DeviceGroup, make: Callable[..., Any], arguments: tuple[Any, ...]
) -> Callable[[], Any]:
    def alone() -> Any:
        return make(*arguments)

    return jax.jit(
        jax.shard_map(alone, mesh=group.mesh, in_specs=(), out_specs=_OWN, check_vma=False)
    )
