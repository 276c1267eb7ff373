"""A device's share of a weight, and the ops that add up what the devices of a group computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from octavo.api import PortableOps, step_tree

if TYPE_CHECKING:
    from octavo.api import LinearWeight

Ops = TypeVar("Ops", bound=PortableOps)

__all__ = ["AXIS", "SharedLinear", "SharedVector", "group_ops", "share_specs"]

AXIS = "tensor"
"""Of the mesh: the devices that share a model."""


@step_tree(static=("axis",))
@dataclass(frozen=True)
class SharedLinear:
    """Rows (``out``) or columns (``in``) of a weight, which the op set's own ``linear`` takes.

    The arrays of ``weight`` are [out_features, in_features], or one of both divided by a whole
    number; the bias is kept apart, as it comes after the sum.
    """

    weight: LinearWeight
    bias: Any  # an array, or None
    axis: str


@step_tree
@dataclass(frozen=True)
class SharedVector:
    """The weight of a norm over features that are divided."""

    values: Any


def share_specs(weights: Any) -> Any:
    """How each array of a model's weights is divided, in a tree like theirs."""
    return jax.tree.map(_spec, weights, is_leaf=_is_share)


def _is_share(node: Any) -> bool:
    return isinstance(node, SharedLinear | SharedVector)


def _spec(node: Any) -> Any:
    rows, columns = PartitionSpec(AXIS), PartitionSpec(None, AXIS)
    if isinstance(node, SharedVector):
        return SharedVector(rows)
    if isinstance(node, SharedLinear):
        is_rows = node.axis == "out"
        weight = jax.tree.map(lambda _array: rows if is_rows else columns, node.weight)
        bias = None if node.bias is None else rows if is_rows else PartitionSpec()
        return SharedLinear(weight, bias, node.axis)
    return PartitionSpec()


def group_ops(base: type[Ops]) -> type[Ops]:
    """An op set like ``base`` that takes shares too; only within ``DeviceGroup.spread``."""

    class GroupOps(base):  # type: ignore[misc, valid-type]
        def linear(self, x: Any, weight: Any) -> Any:
            """The product, summed over the devices where each has some of its terms."""
            if not isinstance(weight, SharedLinear):
                return super().linear(x, weight)
            product = super().linear(x, weight.weight)
            if weight.axis == "in":
                product = self.all_reduce(product)
            return product if weight.bias is None else product + weight.bias

        def rms_norm(self, x: Any, weight: Any, eps: float) -> Any:
            """The mean over the features of all devices."""
            if not isinstance(weight, SharedVector):
                return super().rms_norm(x, weight, eps)
            x32 = x.astype(jnp.float32)
            mean = jax.lax.pmean(jnp.mean(x32 * x32, axis=-1, keepdims=True), AXIS)
            normed = x32 * jax.lax.rsqrt(mean + eps) * weight.values.astype(jnp.float32)
            return normed.astype(x.dtype)

        def all_reduce(self, x: Any) -> Any:
            """The sum over the group, in float32; outside of a step an array is whole as it is."""
            if not _is_within_step():
                return x
            return jax.lax.psum(x.astype(jnp.float32), AXIS).astype(x.dtype)

    GroupOps.__name__ = GroupOps.__qualname__ = f"Group{base.__name__}"
    return GroupOps


def _is_within_step() -> bool:
    """Whether each device computes for itself, as in ``DeviceGroup.spread``."""
    try:
        jax.lax.axis_size(AXIS)
    except NameError:  # so JAX says that there is no such axis
        return False
    return True
