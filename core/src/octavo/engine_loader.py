"""From an EngineConfig to a running engine: device, checkpoint, model, weights, cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from octavo.cache_plan import CachePlan
from octavo.cache_sizing import plan_for
from octavo.completion import Vocabulary
from octavo.config import EngineConfig
from octavo.configured_checkpoint import configured_checkpoint
from octavo.engine import Engine
from octavo.errors import UsageError
from octavo.member_faults import close_backend, naming_faults, naming_step_faults
from octavo.model_loader import load_model
from octavo.open_device import OpenDevice, tell
from octavo.progress import counted_progress
from octavo.relay import leader_of
from octavo.runner import Runner
from octavo.sampling_params import SamplingParams
from octavo.scheduler import GroupConfig, Scheduler, SchedulerConfig
from octavo.step_memory import step_bytes

if TYPE_CHECKING:
    from octavo.backend import Backend, Capabilities
    from octavo.devices import Resolution
    from octavo.loading import Checkpoint
    from octavo.models.base import Model, Weights
    from octavo.ops.binding import OpBinding
    from octavo.ops.protocol import Ops
    from octavo.relay import Relay
    from octavo.sleep import ReloadWeights
    from octavo.tokenizer import Tokenizer

__all__ = ["LoadedEngine", "build_engine", "load_engine", "load_tokenizer_of"]


@dataclass(frozen=True)
class LoadedEngine:
    """An engine and what it stands on."""

    config: EngineConfig
    engine: Engine
    backend: Backend
    resolution: Resolution
    bindings: tuple[OpBinding, ...]
    checkpoint: Checkpoint
    plan: CachePlan
    dtype: str
    default_sampling_params: SamplingParams

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer, if it has one."""
        return self.engine.vocabulary.tokenizer

    def require_tokenizer(self) -> Tokenizer:
        """The model's tokenizer; raises UsageError if the checkpoint has none."""
        if self.tokenizer is None:
            raise UsageError(
                f"{self.checkpoint.name} comes without a tokenizer: pass prompt token ids, or name "
                "a tokenizer (tokenizer=FOLDER)."
            )
        return self.tokenizer

    def close(self) -> None:
        """Release the device and the checkpoint's files.

        Raises BackendError if the backend cannot be closed. What hangs in a step may still read
        all this: then it stays.
        """
        if not self.engine.is_hung:
            self.engine.close()
        if self.engine.is_hung:
            return
        try:
            close_backend(self.backend, self.resolution.spec.name)
        finally:
            self.checkpoint.tensors.close()


def load_engine(config: EngineConfig, device: OpenDevice) -> LoadedEngine:
    """Load everything ``config`` names onto an open device.

    Raises OctavoError subclasses that say what to do about it; the device is closed then.
    """
    relay = None
    try:
        relay = leader_of(device.backend)
        return _load_engine(config, device, relay)
    except BaseException:
        if relay is not None:
            relay.end()
        close_backend(device.backend, device.resolution.spec.name)
        raise


def _load_engine(config: EngineConfig, device: OpenDevice, relay: Relay | None) -> LoadedEngine:
    resolution, backend = device.resolution, device.backend
    cold = naming_faults(backend, resolution.spec.name)
    opened = cold.memory()
    loaded = load_model(config, device)
    checkpoint, ops, shard, weights = loaded.checkpoint, loaded.ops, loaded.shard, loaded.weights
    weight_bytes = opened.free_bytes - cold.memory().free_bytes
    reserved_bytes = step_bytes(config, backend, ops, shard, weights, resolution.spec.name)
    plan = plan_for(config, shard, cold, reserved_bytes=reserved_bytes, opened=opened)
    if relay is not None:
        relay.plan(plan, config.max_logprobs)
    if reserved_bytes:
        _tell_memory(config, weight_bytes, reserved_bytes, plan)
    tokenizer = _load_tokenizer(config, checkpoint)
    vocabulary = Vocabulary(
        shard.vocab_size, tokenizer, eos_token_ids(checkpoint.generation_config, tokenizer)
    )
    engine = build_engine(
        config,
        backend,
        ops,
        shard,
        weights,
        plan,
        vocabulary,
        resolution.spec.name,
        reload_weights=loaded.load_weights,
        relay=relay,
    )
    _prepare(config, engine, backend.caps, resolution.spec.name)
    if (ready := getattr(cold, "ready", None)) is not None:
        ready()
    return LoadedEngine(
        config=config,
        engine=engine,
        backend=backend,
        resolution=resolution,
        bindings=loaded.bindings,
        checkpoint=checkpoint,
        plan=plan,
        dtype=loaded.dtype,
        default_sampling_params=_default_params(config, checkpoint),
    )


def _tell_memory(config: EngineConfig, weight_bytes: int, step_bytes: int, plan: CachePlan) -> None:
    sizes = (weight_bytes, step_bytes, plan.device_bytes)
    weights, step, cache = (f"{size / (1 << 30):,.2f} GiB" for size in sizes)
    tell(
        config,
        f"Memory: weights {weights}, the largest step {step}, KV cache {cache} "
        f"({plan.capacity_tokens:,} tokens).",
    )


def _prepare(config: EngineConfig, engine: Engine, caps: Capabilities, backend_name: str) -> None:
    """Have each step that the backend asks for compiled or recorded."""
    if not caps.rehearsed:
        return
    preparation = engine.runner.preparation
    shapes = preparation.shapes
    with (
        naming_step_faults(backend_name),
        counted_progress(len(shapes), "steps prepared", quiet=config.quiet) as advance,
    ):
        for _ in preparation.prepare_all(shapes):
            advance()


def build_engine(
    config: EngineConfig,
    backend: Backend,
    ops: Ops,
    model: Model,
    weights: Weights,
    plan: CachePlan,
    vocabulary: Vocabulary,
    backend_name: str = "",
    reload_weights: ReloadWeights | None = None,
    relay: Relay | None = None,
) -> Engine:
    """Put an engine together from parts that are loaded; errors call the backend by its name.

    ``reload_weights`` loads them once more, after a sleep that gave them back. ``relay`` is for
    other processes that have devices of the group.
    """
    runner = Runner(
        backend,
        ops,
        model,
        weights,
        plan,
        seed=config.seed,
        max_logprobs=config.max_logprobs,
        backend_name=backend_name,
        relay=relay,
    )
    scheduler = Scheduler(
        SchedulerConfig(
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=config.max_num_batched_tokens,
            max_model_len=plan.limits.max_model_len,
            block_size=plan.limits.block_size,
            max_num_waiting=config.max_num_waiting,
            enable_prefix_caching=config.enable_prefix_caching,
            enable_chunked_prefill=config.enable_chunked_prefill,
            policy=config.scheduling_policy,
            preemption_mode=config.preemption_mode,
        ),
        [
            GroupConfig(num_blocks, num_host_blocks, group.spec.window)
            for group, num_blocks, num_host_blocks in zip(
                plan.groups, plan.num_blocks, plan.num_host_blocks, strict=True
            )
        ],
    )
    return Engine(
        scheduler,
        runner,
        model,
        vocabulary,
        max_model_len=plan.limits.max_model_len,
        max_logprobs=config.max_logprobs,
        step_timeout_s=config.step_timeout_s,
        reload_weights=reload_weights,
    )


def eos_token_ids(
    generation_config: Mapping[str, Any], tokenizer: Tokenizer | None
) -> frozenset[int]:
    """Every token that ends an answer: the tokenizer's and the generation config's."""
    named = generation_config.get("eos_token_id")
    ids = set(tokenizer.eos_token_ids) if tokenizer is not None else set()
    if isinstance(named, int):
        ids.add(named)
    elif isinstance(named, list):
        ids.update(token_id for token_id in named if isinstance(token_id, int))
    return frozenset(ids)


def load_tokenizer_of(config: EngineConfig) -> Tokenizer | None:
    """The tokenizer that an engine of ``config`` has, for another process than the engine's own."""
    checkpoint = configured_checkpoint(config)
    try:
        return _load_tokenizer(replace(config, quiet=True), checkpoint)
    finally:
        checkpoint.tensors.close()


def _load_tokenizer(config: EngineConfig, checkpoint: Checkpoint) -> Tokenizer | None:
    from octavo.tokenizer import has_tokenizer, load_tokenizer

    if config.tokenizer is None and not has_tokenizer(checkpoint.tokenizer):
        tell(config, f"{checkpoint.name} brings no tokenizer: prompts must be token ids.")
        return None
    return load_tokenizer(checkpoint.tokenizer)


def _default_params(config: EngineConfig, checkpoint: Checkpoint) -> SamplingParams:
    if config.generation_config == "octavo":
        return SamplingParams()
    return SamplingParams.from_generation_config(checkpoint.generation_config)
