"""Will a model fit? The arithmetic of ``octavo plan``: no weight is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from octavo.cache_plan import CachePlan
from octavo.cache_sizing import plan_for
from octavo.configured_checkpoint import configured_checkpoint
from octavo.configured_model import configured_model
from octavo.device_group import check_device_group
from octavo.dtype_choice import choose_dtype
from octavo.errors import CapacityError
from octavo.member_faults import close_backend, naming_faults

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.config import EngineConfig
    from octavo.devices import Resolution
    from octavo.loading import Checkpoint
    from octavo.models.base import Model

__all__ = ["FitReport", "fit_reports"]

_TYPICAL_TOKENS = 500  # a chat request: 161 in, 338 out on average (ShareGPT)


@dataclass(frozen=True)
class FitReport:
    """What one model needs and gets on one device, or on each of those that share it."""

    model: str
    device: str
    backend: str
    dtype: str
    num_parameters: int
    weight_bytes: int
    free_bytes: int
    fits: bool
    why_not: str | None = None
    cache_bytes: int = 0
    block_size: int = 0
    cache_bytes_per_token: int = 0
    capacity_tokens: int = 0
    max_model_len: int = 0
    concurrent_full_requests: int = 0
    concurrent_typical_requests: int = 0

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def lines(self) -> Iterator[tuple[str, str]]:
        """(label, value) pairs for people."""
        yield "model", f"{self.model} ({self.num_parameters / 1e6:,.1f} M parameters)"
        yield "device", f"{self.device}, backend {self.backend}, {self.dtype}"
        yield "free memory", _size(self.free_bytes)
        yield "weights", _size(self.weight_bytes)
        if self.fits:
            yield (
                "KV cache",
                (
                    f"{_size(self.cache_bytes)}: {self.capacity_tokens:,} tokens of "
                    f"{_size(self.cache_bytes_per_token)} in blocks of {self.block_size}"
                ),
            )
            yield "longest context", f"{self.max_model_len:,} tokens"
            yield (
                "requests at once",
                (
                    f"{self.concurrent_full_requests:,} of the longest context, or "
                    f"{self.concurrent_typical_requests:,} of {_TYPICAL_TOKENS} tokens"
                ),
            )
        yield "verdict", "it fits" if self.fits else f"it does not fit: {self.why_not}"


def fit_reports(config: EngineConfig) -> list[FitReport]:
    """One report for each device that ``config`` allows: all of them for ``device="auto"``."""
    from octavo.devices import load_backend
    from octavo.plugins import load_plugins
    from octavo.policy import load_policy

    policy = load_policy(config.plugins_file)
    plugins = load_plugins(policy)
    checkpoint = configured_checkpoint(config)
    reports = []
    for resolution in _resolutions(config, policy, plugins):
        check_device_group(config, resolution, policy, plugins)
        model = configured_model(config, checkpoint, plugins, resolution.spec.name)
        backend = load_backend(resolution, policy, config.backend_options)
        try:
            reports.append(_report(config, checkpoint, resolution, model, backend))
        finally:
            close_backend(backend, resolution.spec.name)
    checkpoint.tensors.close()
    return reports


def _resolutions(config: EngineConfig, policy: Any, plugins: Any) -> list[Resolution]:
    """The device asked for, or with auto every device that is here, best first, each once."""
    from octavo.device_search import DeviceSearch
    from octavo.devices import Resolution, resolve

    if config.device != "auto":
        return [resolve(config.device, config.backend, policy, plugins)]
    search = DeviceSearch(policy, plugins, config.backend)
    found: dict[tuple[str, int], Resolution] = {}
    for spec, device in search.automatic_devices():
        # The first that serves a device is the one that auto would take for it.
        found.setdefault((device.kind, device.index), Resolution(spec, device, "present"))
    able = [each for each in found.values() if each.spec.tensor_parallel]
    if config.tensor_parallel_size > 1 and able:
        return able
    return list(found.values()) or [resolve("auto", config.backend, policy, plugins)]


def _report(
    config: EngineConfig,
    checkpoint: Checkpoint,
    resolution: Resolution,
    model: Model,
    backend: Backend,
) -> FitReport:
    from octavo.loading.packing import packing_for
    from octavo.loading.weight_bytes import weight_bytes
    from octavo.models.sharding import shard_model

    backend = naming_faults(backend, resolution.spec.name)
    dtype = choose_dtype("dtype", config.dtype, backend.caps.dtypes)
    packing = packing_for(config.quantization, backend.caps.quantization, checkpoint.tensors)
    num_shards = config.tensor_parallel_size
    shard = shard_model(model, num_shards)
    needed_bytes = weight_bytes(model, checkpoint.tensors, packing, dtype, num_shards)
    free_bytes = backend.memory().free_bytes
    common: dict[str, Any] = {
        "model": checkpoint.name,
        "device": f"{resolution.device.kind}:{resolution.device.index} {resolution.device.name}",
        "backend": resolution.spec.name,
        "dtype": dtype,
        "num_parameters": model.num_parameters,
        "weight_bytes": needed_bytes,
        "free_bytes": free_bytes,
    }
    if needed_bytes >= free_bytes:
        why = f"the weights need {_size(needed_bytes)} of {_size(free_bytes)} free"
        return FitReport(**common, fits=False, why_not=why)
    try:
        plan = plan_for(config, shard, backend, reserved_bytes=needed_bytes)
    except CapacityError as error:
        return FitReport(**common, fits=False, why_not=str(error))
    return FitReport(**common, fits=True, **_cache_figures(plan))


def _cache_figures(plan: CachePlan) -> dict[str, Any]:
    return {
        "cache_bytes": plan.device_bytes,
        "block_size": plan.limits.block_size,
        "cache_bytes_per_token": plan.bytes_per_token,
        "capacity_tokens": plan.capacity_tokens,
        "max_model_len": plan.limits.max_model_len,
        "concurrent_full_requests": _concurrent(plan, plan.limits.max_model_len),
        "concurrent_typical_requests": _concurrent(plan, _TYPICAL_TOKENS),
    }


def _concurrent(plan: CachePlan, num_tokens: int) -> int:
    """How many requests of that length the cache and max_num_seqs hold at once."""
    num_tokens = min(num_tokens, plan.limits.max_model_len)
    block_size = plan.limits.block_size
    held = [
        (count - 1)
        // -(-min(num_tokens, (group.spec.window or num_tokens) + block_size) // block_size)
        for group, count in zip(plan.groups, plan.num_blocks, strict=True)
    ]
    return min(*held, plan.limits.max_num_seqs)


def _size(num_bytes: int) -> str:
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes} bytes"
