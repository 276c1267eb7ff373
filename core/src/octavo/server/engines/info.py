"""What a server tells of a loaded engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octavo.server.engines.client import EngineInfo

if TYPE_CHECKING:
    from octavo.engine_loader import LoadedEngine

__all__ = ["info_of"]


def info_of(loaded: LoadedEngine) -> EngineInfo:
    """The facts of an engine that do not change while it runs."""
    config, engine, plan = loaded.config, loaded.engine, loaded.plan
    resolution = loaded.resolution
    return EngineInfo(
        model=config.model,
        architecture=_architecture(loaded),
        num_parameters=engine.model.num_parameters,
        device=f"{resolution.device.kind}:{resolution.device.index}",
        backend=resolution.spec.name,
        reason=resolution.reason,
        dtype=loaded.dtype,
        quantization=config.quantization or "none",
        kv_cache_dtype=plan.groups[0].spec.dtype,
        max_model_len=engine.max_model_len,
        block_size=plan.limits.block_size,
        num_blocks=tuple(count - 1 for count in plan.num_blocks),
        vocab_size=engine.vocabulary.size,
        max_logprobs=config.max_logprobs,
        max_num_seqs=config.max_num_seqs,
        default_sampling_params=loaded.default_sampling_params,
    )


def _architecture(loaded: LoadedEngine) -> str:
    names = loaded.checkpoint.config.get("architectures") or ["unknown"]
    return str(names[0])
