"""A process that takes no requests: it runs the steps of the one that does, on its own devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from octavo.compiled_step import CompiledStep
from octavo.errors import UsageError
from octavo.kv_store import KVStore
from octavo.member_faults import close_backend, naming_step_faults
from octavo.open_device import open_device
from octavo.relay import follower_of
from octavo.transfers import Transfers

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.cache_plan import CachePlan
    from octavo.config import EngineConfig
    from octavo.models.base import Model, Weights
    from octavo.ops.protocol import Ops

__all__ = ["Follower", "follow"]


class Follower:
    """The caches and the compiled step of one process."""

    def __init__(
        self,
        backend: Backend,
        ops: Ops,
        model: Model,
        weights: Weights,
        plan: CachePlan,
        max_logprobs: int,
    ) -> None:
        self._backend = backend
        self._weights = weights
        self._block_size = plan.limits.block_size
        self._store = KVStore(backend, plan)
        self._step = CompiledStep(backend, ops, model, self._store.layer_groups, max_logprobs)
        self._transfers = Transfers(backend)

    def obey(self, kind: str, *payload: Any) -> None:
        """Do what a message of ``octavo.relay.Relay`` says."""
        obedience: dict[str, Callable[..., None]] = {
            "step": self._run,
            "copy": self._store.copy,
            "reset": self._store.reset,
        }
        obedience[kind](*payload)

    def _run(self, batch: Any, sampling: Any, targets: Any) -> None:
        """One step; what it samples, the first process knows."""
        plans = tuple(self._backend.plan(batch, self._block_size))
        batch, sampling, targets, *placed_plans = self._transfers.put(
            batch, sampling, targets, *(plans if self._transfers.takes_plans else ())
        )
        self._store.caches, result, _ = self._step.run(
            self._weights,
            self._store.caches,
            batch,
            tuple(placed_plans) or plans,
            sampling=sampling,
            prompt_targets=targets,
        )
        self._backend.get(result.token_ids)  # no further ahead than the first process


def follow(config: EngineConfig) -> None:
    """Load what ``config`` names and run steps until the first process ends; raises OctavoError."""
    from octavo.model_loader import load_model  # heavy: only once there is a device

    device = open_device(config)
    try:
        relay = follower_of(device.backend)
        loaded = load_model(config, device)
        messages = relay.messages()
        first = next(messages, None)
        if first is None:
            raise UsageError("The first process could not load the model: see what it says.")
        _, plan, max_logprobs = first
        follower = Follower(
            device.backend, loaded.ops, loaded.shard, loaded.weights, plan, max_logprobs
        )
        with naming_step_faults(device.resolution.spec.name):
            for message in messages:
                follower.obey(*message)
    finally:
        close_backend(device.backend, device.resolution.spec.name)
