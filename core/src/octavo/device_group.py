"""Whether several devices may share a model, before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octavo.errors import UsageError

if TYPE_CHECKING:
    from octavo.config import EngineConfig
    from octavo.devices import Resolution
    from octavo.plugins import Plugins
    from octavo.policy import Policy

__all__ = ["check_device_group"]

_OPTION = "tensor_parallel_size"


def check_device_group(
    config: EngineConfig, resolution: Resolution, policy: Policy, plugins: Plugins
) -> None:
    """Raise UsageError unless the chosen backend can do what ``tensor_parallel_size`` asks."""
    spec = resolution.spec
    if _OPTION in policy.options.get(spec.name, {}) or _OPTION in (config.options or {}):
        raise UsageError(
            f"{_OPTION} is no option of a backend: the model has to know it too. Pass "
            f"--tensor-parallel-size, or {_OPTION}= to LLM."
        )
    if config.tensor_parallel_size == 1 or spec.tensor_parallel:
        return
    able = sorted(each.name for each in plugins.backends.values() if each.tensor_parallel)
    instead = f"choose --backend {' or '.join(able)}, or leave it out" if able else "leave it out"
    raise UsageError(
        f"{_OPTION}={config.tensor_parallel_size}: backend {spec.name!r} does not divide a model "
        f"among devices; {instead}."
    )
