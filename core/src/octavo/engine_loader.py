"""From an EngineConfig to a running engine: device, checkpoint, model, weights, cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octavo.cache_plan import CacheLimits, CachePlan, plan_cache
from octavo.completion import Vocabulary
from octavo.config import EngineConfig
from octavo.engine import Engine
from octavo.errors import CapacityError, UsageError
from octavo.kv import group_layers
from octavo.member_faults import close_backend, naming_faults
from octavo.open_device import OpenDevice, tell
from octavo.runner import Runner
from octavo.sampling_params import SamplingParams
from octavo.scheduler import GroupConfig, Scheduler, SchedulerConfig

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.devices import Resolution
    from octavo.loading import Checkpoint
    from octavo.models.base import Model, Weights
    from octavo.ops.binding import OpBinding
    from octavo.ops.protocol import Ops
    from octavo.tokenizer import Tokenizer

__all__ = ["LoadedEngine", "build_engine", "load_engine", "plan_for"]


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
        if self.engine.is_hung:
            return
        try:
            close_backend(self.backend, self.resolution.spec.name)
        finally:
            self.engine.close()
            self.checkpoint.tensors.close()


def load_engine(config: EngineConfig, device: OpenDevice) -> LoadedEngine:
    """Load everything ``config`` names onto an open device.

    Raises OctavoError subclasses that say what to do about it; the device is closed then.
    """
    try:
        return _load_engine(config, device)
    except BaseException:
        close_backend(device.backend, device.resolution.spec.name)
        raise


def _load_engine(config: EngineConfig, device: OpenDevice) -> LoadedEngine:
    from octavo.loading import open_checkpoint
    from octavo.models.registry import build_model
    from octavo.ops.binding import bind_ops

    resolution, backend = device.resolution, device.backend
    cold = naming_faults(backend, resolution.spec.name)
    checkpoint = open_checkpoint(
        config.model,
        load_format=config.load_format,
        revision=config.revision,
        tokenizer=config.tokenizer,
        download_dir=config.download_dir,
        config_overrides=config.hf_overrides,
        seed=config.seed,
    )
    model = build_model(checkpoint.config, device.plugins.models, resolution.spec.name)
    dtype = choose_dtype("dtype", config.dtype, backend.caps.dtypes)
    ops, bindings = bind_ops(
        backend,
        resolution,
        device.policy,
        device.plugins,
        model=model,
        attention_backend=config.attention_backend,
    )
    weights = _load_weights(config, checkpoint, model, cold, dtype)
    plan = plan_for(config, model, cold)
    tokenizer = _load_tokenizer(config, checkpoint)
    vocabulary = Vocabulary(
        model.vocab_size, tokenizer, eos_token_ids(checkpoint.generation_config, tokenizer)
    )
    engine = build_engine(
        config, backend, ops, model, weights, plan, vocabulary, resolution.spec.name
    )
    return LoadedEngine(
        config=config,
        engine=engine,
        backend=backend,
        resolution=resolution,
        bindings=tuple(bindings),
        checkpoint=checkpoint,
        plan=plan,
        dtype=dtype,
        default_sampling_params=_default_params(config, checkpoint),
    )


def build_engine(
    config: EngineConfig,
    backend: Backend,
    ops: Ops,
    model: Model,
    weights: Weights,
    plan: CachePlan,
    vocabulary: Vocabulary,
    backend_name: str = "",
) -> Engine:
    """Put an engine together from parts that are loaded; errors call the backend by its name."""
    runner = Runner(
        backend,
        ops,
        model,
        weights,
        plan,
        seed=config.seed,
        max_logprobs=config.max_logprobs,
        backend_name=backend_name,
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
    )


def plan_for(
    config: EngineConfig, model: Model, backend: Backend, *, reserved_bytes: int = 0
) -> CachePlan:
    """Size the caches for what is free, less ``reserved_bytes`` for weights not loaded yet."""
    caps = backend.caps
    block_size = config.block_size or caps.block_sizes[0]
    if block_size not in caps.block_sizes:
        raise UsageError(
            f"block_size={block_size} is not one this backend takes; use one of "
            f"{', '.join(map(str, sorted(caps.block_sizes)))}."
        )
    kv_dtype = choose_dtype("kv_cache_dtype", config.kv_cache_dtype, caps.kv_dtypes)
    groups = group_layers(model.kv_specs(kv_dtype))
    limits = CacheLimits(
        block_size=block_size,
        max_model_len=min(
            config.max_model_len or model.max_position_embeddings, model.max_position_embeddings
        ),
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
    )
    if config.max_model_len is not None and config.max_model_len > limits.max_model_len:
        raise UsageError(
            f"max_model_len={config.max_model_len} is more than the {limits.max_model_len} "
            "positions that this model knows; lower it, or set hf_overrides for rope scaling."
        )
    swap_bytes = config.swap_space_bytes if caps.host_swap else 0
    plan = plan_cache(
        groups, limits, _cache_budget_bytes(config, backend, reserved_bytes), swap_bytes
    )
    return _with_fitting_context(config, plan, swap_bytes)


def _with_fitting_context(config: EngineConfig, plan: CachePlan, swap_bytes: int) -> CachePlan:
    """The plan, with the context limited to what one request alone can hold."""
    fits = plan.longest_request_tokens
    if fits >= plan.limits.max_model_len:
        return plan
    if config.max_model_len is not None:
        raise CapacityError(
            f"max_model_len={config.max_model_len} needs more KV cache than there is: the cache "
            f"of {plan.device_bytes / (1 << 20):.1f} MiB holds {fits} tokens at "
            f"{plan.bytes_per_token / 1024:.1f} KiB each. Lower max_model_len to {fits}, or raise "
            "kv_cache_memory_bytes or gpu_memory_utilization."
        )
    tell(
        config,
        f"The cache holds {fits} tokens, fewer than the {plan.limits.max_model_len} the model "
        f"knows: the context is limited to {fits}.",
    )
    limits = CacheLimits(
        plan.limits.block_size,
        fits,
        plan.limits.max_num_seqs,
        plan.limits.max_num_batched_tokens,
    )
    return plan_cache(plan.groups, limits, plan.device_bytes, swap_bytes)


def _cache_budget_bytes(config: EngineConfig, backend: Backend, reserved_bytes: int) -> int:
    if config.kv_cache_memory_bytes is not None:
        return config.kv_cache_memory_bytes
    memory = backend.memory()
    share = config.gpu_memory_utilization
    if memory.shared_with_host:
        share /= 2  # the rest of the system lives here too
    return int(max(0, memory.free_bytes - reserved_bytes) * share)


def choose_dtype(option: str, wanted: str, available: tuple[str, ...]) -> str:
    """``wanted``, or with "auto" what the backend prefers."""
    if wanted == "auto":
        return available[0]
    aliases = {"half": "float16", "float": "float32", "fp32": "float32", "fp16": "float16"}
    name = {**aliases, "bf16": "bfloat16"}.get(wanted, wanted)
    if name not in available:
        raise UsageError(
            f"{option}={wanted!r} is not one this backend has; use auto or one of "
            f"{', '.join(available)}."
        )
    return name


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


def _load_weights(
    config: EngineConfig, checkpoint: Checkpoint, model: Model, backend: Backend, dtype: str
) -> Weights:
    from octavo.loading.hollow_weights import HollowWeightLoader
    from octavo.loading.progress import load_progress
    from octavo.loading.weights import CheckpointWeightLoader

    item_bytes = 4 if dtype == "float32" else 2
    with load_progress(
        model.num_parameters * item_bytes, checkpoint.name, quiet=config.quiet
    ) as on_bytes:
        kind = CheckpointWeightLoader if backend.caps.reads_weights else HollowWeightLoader
        loader = kind(checkpoint.tensors, backend, dtype, on_bytes=on_bytes)
        weights = model.load(loader)
    unused = loader.unused()
    if unused:
        shown = ", ".join(unused[:5]) + (" …" if len(unused) > 5 else "")
        tell(config, f"Not used by this model: {len(unused)} tensors ({shown}).")
    return weights


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
