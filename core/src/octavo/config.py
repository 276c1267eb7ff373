"""How an engine is set up: every option with its default, checked before anything is loaded."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeGuard

from octavo.errors import UsageError

__all__ = [
    "EngineConfig",
    "ModelImplementation",
    "PreemptionMode",
    "Quantization",
    "SchedulingPolicy",
]

SchedulingPolicy = Literal["fcfs", "priority"]
PreemptionMode = Literal["auto", "recompute", "swap"]
LoadFormat = Literal["auto", "safetensors", "gguf", "dummy"]
Quantization = Literal["int8", "int4"]
ModelImplementation = Literal["auto", "octavo", "transformers"]
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Options of one engine; names are vLLM's where vLLM has them."""

    model: str
    tokenizer: str | None = None
    revision: str | None = None
    download_dir: str | None = None
    load_format: LoadFormat = "auto"
    hf_overrides: Mapping[str, Any] | None = None  # entries of config.json to replace
    model_impl: ModelImplementation = "auto"  # whose code of the model runs
    generation_config: Literal["auto", "octavo"] = "auto"  # "octavo" ignores the model's defaults

    device: str = "auto"
    backend: str | None = None
    attention_backend: str | None = None
    plugins_file: str | None = None
    threads: int | None = None  # option `threads` of the backend; None asks the backend
    options: Mapping[str, Any] | None = None  # handed to the backend, over plugins.toml's
    tensor_parallel_size: int = 1  # devices that share the model, each with some of its heads

    dtype: str = "auto"
    quantization: Quantization | None = None  # quantise the weights at load; None: as they are
    kv_cache_dtype: str = "auto"
    block_size: int | None = None  # tokens per block; None asks the backend
    max_model_len: int | None = None  # tokens of prompt and answer; None asks the model
    gpu_memory_utilization: float = 0.9  # share of a device's memory; see cache_sizing
    kv_cache_memory_bytes: int | None = None  # instead of a share
    swap_space: float = 1.0  # GiB of host memory for preempted requests' blocks

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_num_waiting: int | None = None  # None: unbounded
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    scheduling_policy: SchedulingPolicy = "fcfs"
    preemption_mode: PreemptionMode = "auto"
    step_timeout_s: float | None = None  # a step that takes longer stops the engine; None: no limit
    max_logprobs: int = 20
    seed: int = 0
    quiet: bool = False  # no progress bars and no lines about what was chosen

    def __post_init__(self) -> None:
        """Raise UsageError at the first value that cannot be used."""
        if not isinstance(self.model, str) or not self.model:
            raise UsageError(
                f"model={self.model!r} is not a model: pass a .gguf file, a folder with "
                "config.json, or a hub name such as 'org/name'."
            )
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                known = ", ".join(choice or "None" for choice in choices)
                raise UsageError(f"{name}={value!r} is unknown; use one of {known}.")
        for name, lowest in _WHOLE_NUMBERS.items():
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise UsageError(f"{name}={value!r} must be a whole number of at least {lowest}.")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not _is_within(value, low, high) and not (value is None and name in _OPTIONAL):
                raise UsageError(f"{name}={value!r} must be between {low:g} and {high:g}.")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise UsageError(
                f"max_num_batched_tokens={self.max_num_batched_tokens} is less than "
                f"max_num_seqs={self.max_num_seqs}: each running request needs a token a step. "
                "Raise the first or lower the second."
            )

    @classmethod
    def from_options(cls, model: str, options: Mapping[str, Any]) -> EngineConfig:
        """Build from keyword options; an unknown one is refused with a suggestion."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known)}."
                raise UsageError(f"Unknown engine option {name!r}.{hint}")
        return cls(model=model, **options)

    @property
    def backend_options(self) -> Mapping[str, Any]:
        """``options`` with those that have a name here, which win; they go over plugins.toml's."""
        own: dict[str, Any] = {} if self.threads is None else {"threads": self.threads}
        if self.tensor_parallel_size > 1:
            own["tensor_parallel_size"] = self.tensor_parallel_size
        return {**(self.options or {}), **own}

    @property
    def swap_space_bytes(self) -> int:
        """``swap_space`` in bytes."""
        return int(self.swap_space * GIB)


_CHOICES: Mapping[str, tuple[str | None, ...]] = {
    "quantization": (None, "int8", "int4"),
    "load_format": ("auto", "safetensors", "gguf", "dummy"),
    "model_impl": ("auto", "octavo", "transformers"),
    "generation_config": ("auto", "octavo"),
    "scheduling_policy": ("fcfs", "priority"),
    "preemption_mode": ("auto", "recompute", "swap"),
}
_WHOLE_NUMBERS = {
    "threads": 1,
    "tensor_parallel_size": 1,
    "block_size": 1,
    "max_model_len": 1,
    "kv_cache_memory_bytes": 1,
    "max_num_seqs": 1,
    "max_num_batched_tokens": 1,
    "max_num_waiting": 1,
    "max_logprobs": 0,
    "seed": 0,
}
_OPTIONAL = ("step_timeout_s",)
_RANGES = {
    "gpu_memory_utilization": (0.01, 1),
    "swap_space": (0, 1 << 20),
    "step_timeout_s": (0.001, 1 << 20),
    "seed": (0, (1 << 64) - 1),
}


def _is_within(value: object, low: float, high: float) -> bool:
    return _is_number(value) and low <= value <= high


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
