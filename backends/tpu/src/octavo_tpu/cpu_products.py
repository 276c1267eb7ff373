"""Products with a weight, in the form that XLA computes fastest on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from octavo.api import step_tree

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["TurnedLinear", "dot", "product_of", "turned_product"]

_FEW_ROWS = 8
_TURNED_ROWS = range(2, 25)


def dot(
    x: Float[jax.Array, "rows in_features"], y: Float[jax.Array, "out_features in_features"]
) -> Float[jax.Array, "rows out_features"]:
    """``x @ y.T``, summed in float32."""
    return jax.lax.dot_general(x, y, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)


def product_of(
    x: Float[jax.Array, "rows in_features"], weight: Float[jax.Array, "out_features in_features"]
) -> Float[jax.Array, "rows out_features"]:
    """The same, the weight first where there are few rows: it is read a third faster so.

    One row of 16 bits has a second beside it: alone it is multiplied at a tenth of the speed.
    """
    rows = x.shape[0]
    if x.dtype == jnp.float32:
        return dot(weight, x).T if rows <= _FEW_ROWS else dot(x, weight)
    if rows == 1:
        return dot(jnp.concatenate([x, x]), weight)[:1]
    return dot(x, weight)


def turned_product(
    x: Float[jax.Array, "rows in_features"], weight: Float[jax.Array, "in_features out_features"]
) -> Float[jax.Array, "rows out_features"]:
    """``x @ weight``, summed in float32; a few rows have their axes exchanged as well.

    XLA leaves such a product to Eigen, which reads a layer's weights a third faster than YNNPACK
    does. It would exchange the axes back where nothing stood between.
    """
    if x.shape[0] not in _TURNED_ROWS:
        return jnp.matmul(x, weight, preferred_element_type=jnp.float32)
    turned = jax.lax.optimization_barrier(x.T)
    dimensions = (((0,), (0,)), ((), ()))
    return jax.lax.dot_general(turned, weight, dimensions, preferred_element_type=jnp.float32)


@step_tree
@dataclass(frozen=True)
class TurnedLinear:
    """A float32 weight with its axes exchanged: for 2 to 16 rows it is read half as fast again."""

    weight: Float[jax.Array, "in_features out_features"]
    bias: Float[jax.Array, "out_features"] | None = None
