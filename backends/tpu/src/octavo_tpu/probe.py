"""Which PJRT devices can be used, or why none of a kind can: without importing JAX."""

from __future__ import annotations

import platform as system
from importlib.util import find_spec
from pathlib import Path

from octavo.api import DeviceInfo, Lacking, Probe, host_memory
from octavo_tpu.platforms import PLATFORMS, Platform, installed_plugins

__all__ = ["probe"]


def probe(root: Path = Path("/")) -> Probe:
    """The CPU, and every device that has both hardware and a plugin; why not, for all others."""
    if find_spec("jax") is None or find_spec("jaxlib") is None:
        return Probe(reason="JAX is not installed", install="pip install jax")
    plugins = installed_plugins()
    devices: list[DeviceInfo] = []
    lacking: list[Lacking] = []
    for each in PLATFORMS:
        count, is_installed = each.count(root), bool(plugins.intersection(each.plugins))
        if count and is_installed:
            devices += [DeviceInfo(each.kind, i, f"{each.device} {i}") for i in range(count)]
        elif each.kind == "tpu" or is_installed:
            lacking.append(_lacking(each, count, is_installed=is_installed))
    name = system.processor() or system.machine() or "CPU"
    devices.append(DeviceInfo("cpu", 0, name, host_memory().total_bytes))
    return Probe(tuple(devices), lacking=tuple(lacking))


def _lacking(platform: Platform, count: int, *, is_installed: bool) -> Lacking:
    """What is missing, and what helps."""
    name, kind = platform.device, platform.kind
    if count:
        plural = "s" if count > 1 else ""
        return Lacking(kind, f"{count} {name}{plural}, but no PJRT plugin", platform.install)
    if is_installed:
        return Lacking(
            kind,
            f"there is a PJRT plugin, but no {name}",
            "the device's driver; for a container, the device itself",
        )
    return Lacking(kind, f"there is no {name}, and no PJRT plugin for one", platform.install)
