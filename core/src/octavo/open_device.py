"""Policy, plugins, the device chosen and its backend loaded: the first half of loading a model."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.device_group import check_device_group
from octavo.devices import Resolution, load_backend, resolve
from octavo.plugins import Plugins, load_plugins
from octavo.policy import Policy, load_policy

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.config import EngineConfig

__all__ = ["OpenDevice", "open_device", "tell"]


@dataclass(frozen=True)
class OpenDevice:
    """A loaded backend and how it was chosen."""

    policy: Policy
    plugins: Plugins
    resolution: Resolution
    backend: Backend


def open_device(config: EngineConfig) -> OpenDevice:
    """Choose a device as ``config`` asks and load its backend. Raises OctavoError."""
    policy = load_policy(config.plugins_file)
    plugins = load_plugins(policy)
    resolution = resolve(config.device, config.backend, policy, plugins)
    check_device_group(config, resolution, policy, plugins)
    tell(config, resolution.reason)
    backend = load_backend(resolution, policy, config.backend_options)
    return OpenDevice(policy, plugins, resolution, backend)


def tell(config: EngineConfig, line: str) -> None:
    """One line on standard error about a choice made for the user, unless ``quiet``."""
    if not config.quiet:
        print(line, file=sys.stderr)  # noqa: T201 - what the user is meant to see
