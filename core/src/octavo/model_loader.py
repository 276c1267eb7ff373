"""A model on an open device: its ops bound, and its weights loaded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.configured_checkpoint import configured_checkpoint
from octavo.configured_model import configured_model
from octavo.dtype_choice import choose_dtype
from octavo.errors import OctavoError
from octavo.member_faults import naming_faults
from octavo.open_device import OpenDevice, tell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from octavo.backend import Backend
    from octavo.config import EngineConfig
    from octavo.loading import Checkpoint
    from octavo.loading.packing import Packing
    from octavo.models.base import Model, Weights
    from octavo.ops.binding import OpBinding
    from octavo.ops.protocol import Ops

__all__ = ["LoadedModel", "load_model"]


@dataclass(frozen=True)
class LoadedModel:
    """What runs a step, save for the caches; ``shard`` is the model as one device has it."""

    checkpoint: Checkpoint
    shard: Model
    ops: Ops
    bindings: tuple[OpBinding, ...]
    weights: Weights
    load_weights: Callable[[], Weights]
    dtype: str


def load_model(config: EngineConfig, device: OpenDevice) -> LoadedModel:
    """Load the model that ``config`` names. Raises OctavoError."""
    from octavo.models.sharding import shard_model
    from octavo.ops.binding import bind_ops

    resolution, backend = device.resolution, device.backend
    cold = naming_faults(backend, resolution.spec.name)
    checkpoint = configured_checkpoint(config)
    model = configured_model(config, checkpoint, device.plugins, resolution.spec.name)
    shard = shard_model(model, config.tensor_parallel_size)
    dtype = choose_dtype("dtype", config.dtype, backend.caps.dtypes)
    ops, bindings = bind_ops(
        backend,
        resolution,
        device.policy,
        device.plugins,
        model=shard,
        attention_backend=config.attention_backend,
    )
    load_weights = functools.partial(_load_weights, config, checkpoint, model, cold, dtype)
    return LoadedModel(checkpoint, shard, ops, tuple(bindings), load_weights(), load_weights, dtype)


def _load_weights(
    config: EngineConfig, checkpoint: Checkpoint, model: Model, backend: Backend, dtype: str
) -> Weights:
    from octavo.loading.hollow_weights import HollowWeightLoader
    from octavo.loading.packing import packing_for
    from octavo.loading.progress import load_progress
    from octavo.loading.weights import CheckpointWeightLoader

    reads_weights = backend.caps.reads_weights
    packing = packing_for(config.quantization, backend.caps.quantization, checkpoint.tensors)
    importance = _importance(config, checkpoint, model, packing) if reads_weights else {}
    item_bytes = 4 if dtype == "float32" else 2
    with load_progress(
        model.num_parameters * item_bytes, checkpoint.name, quiet=config.quiet
    ) as on_bytes:
        kind = CheckpointWeightLoader if reads_weights else HollowWeightLoader
        loader = kind(
            checkpoint.tensors,
            backend,
            dtype,
            packing=packing,
            importance=importance,
            on_bytes=on_bytes,
            num_shards=config.tensor_parallel_size,
        )
        weights = model.load(loader)
    unused = loader.unused()
    if unused:
        shown = ", ".join(unused[:5]) + (" …" if len(unused) > 5 else "")
        tell(config, f"Not used by this model: {len(unused)} tensors ({shown}).")
    if packing.schemes and loader.unpacked:
        counts = ", ".join(f"{count} in {scheme}" for scheme, count in loader.unpacked.items())
        tell(config, f"Unpacked to {dtype}, since the backend does not take them so: {counts}.")
    return weights


def _importance(
    config: EngineConfig, checkpoint: Checkpoint, model: Model, packing: Packing
) -> Mapping[str, NDArray[np.float32]]:
    """What each column of a weight counts, where the packing has a choice; empty: all alike."""
    from octavo.loading.importance import measure_importance
    from octavo.loading.tensors import ShapelessSource

    source = checkpoint.tensors
    if not packing.weighs_columns or isinstance(source, ShapelessSource):
        return {}
    tell(config, "int4: running the model over random tokens to see which weights count most.")
    try:
        return measure_importance(model, source)
    except OctavoError:
        raise
    except Exception as error:  # noqa: BLE001 - a plugin's model may need ops of its own backend
        tell(config, f"int4: the model does not run on the host ({error!r}): weights count alike.")
        return {}
