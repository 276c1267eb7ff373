"""A model divided among devices: what one of them computes, checked against the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octavo.errors import UsageError
from octavo.models.counting import ShapeRecorder

if TYPE_CHECKING:
    from octavo.models.base import Model

__all__ = ["shard_model"]


def shard_model(model: Model, num_shards: int) -> Model:
    """The model as each of ``num_shards`` devices runs it; ``model`` itself where that is one.

    Raises UsageError where its sizes do not divide, or where the model does not say how they do.
    """
    if num_shards == 1:
        return model
    shard_of = getattr(model, "shard", None)
    if shard_of is None:
        raise UsageError(
            f"tensor_parallel_size={num_shards}: {type(model).__name__} does not say how it "
            "divides among devices (it has no method shard); run it on one."
        )
    shard: Model = shard_of(num_shards)
    _check(model, shard, num_shards)
    return shard


def _check(model: Model, shard: Model, num_shards: int) -> None:
    """What the whole model's loading divides has to be what the shard reads."""
    whole, part = ShapeRecorder(), ShapeRecorder()
    model.load(whole)
    shard.load(part)
    for name, shape in whole.shapes.items():
        divided = list(shape)
        if name in whole.splits:
            axis, split = whole.splits[name]
            divided[axis] = split.shard_size(num_shards)
        if part.shapes.get(name) != tuple(divided):
            raise UsageError(
                f"tensor_parallel_size={num_shards}: {type(model).__name__} reads "
                f"{list(part.shapes.get(name, ()))} of {name} {list(shape)} on each device, but "
                f"loads {list(divided)}: what load asks for has to name its split (octavo.splits). "
                "Run it on one device."
            )
