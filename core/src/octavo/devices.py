"""Choose a device and the backend that serves it, and say why; load the backend."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octavo.device_listing import DeviceListing, list_devices
from octavo.device_search import DeviceSearch, order_backends
from octavo.errors import BackendError, DeviceError, OctavoError
from octavo.isolation import describe
from octavo.plugins import Plugins, load_plugins
from octavo.policy import Policy, load_policy
from octavo.spec import BackendSpec, DeviceInfo
from octavo.suggest import choices

if TYPE_CHECKING:
    from octavo.backend import Backend

__all__ = [
    "DeviceListing",
    "DeviceRequest",
    "Resolution",
    "list_devices",
    "load_backend",
    "order_backends",
    "resolve",
]


@dataclass(frozen=True)
class DeviceRequest:
    """What ``--device`` asks for: ``auto``, a kind, or a kind and an index."""

    kind: str
    index: int | None = None

    @classmethod
    def parse(cls, text: str) -> DeviceRequest:
        """From ``auto | KIND[:INDEX]``. Raises DeviceError."""
        match = re.fullmatch(r"([a-z][a-z0-9_-]*)(?::([0-9]{1,6}))?", text)
        if match is None or (match[1] == "auto" and match[2]):
            raise DeviceError(
                f"{text!r} is not a device; expected auto, or KIND[:INDEX] in lower case, "
                "for example cpu or cuda:0."
            )
        return cls(match[1], int(match[2]) if match[2] else None)


@dataclass(frozen=True)
class Resolution:
    """The chosen device, the backend that runs it, and one line that says both and why."""

    spec: BackendSpec
    device: DeviceInfo
    reason: str


def resolve(
    device: str = "auto",
    backend: str | None = None,
    policy: Policy | None = None,
    plugins: Plugins | None = None,
) -> Resolution:
    """Choose the device and backend. An explicit choice is served as asked, or refused.

    Raises DeviceError with the known kinds, backends or devices, and the pip line where one helps.
    """
    policy = policy if policy is not None else load_policy()
    plugins = plugins if plugins is not None else load_plugins(policy)
    request = DeviceRequest.parse(device)
    search = DeviceSearch(policy, plugins, backend)
    if request.kind == "auto":
        return _resolve_automatically(search)
    return _resolve_request(request, search)


def _resolve_request(request: DeviceRequest, search: DeviceSearch) -> Resolution:
    search.check_kind(request.kind)
    seen = []
    for spec, device in search.devices(request.kind):
        if request.index in (None, device.index):
            return _resolution(spec, device, "as asked", search.notes())
        seen.append(f"{device.kind}:{device.index} of {spec.name} ({device.name})")
    if seen:
        raise DeviceError(f"There is no {request.kind}:{request.index}; there is {choices(seen)}.")
    raise DeviceError(f"No {request.kind} device can be used: {'; '.join(search.notes())}.")


def _resolve_automatically(search: DeviceSearch) -> Resolution:
    pinned = search.pinned
    for spec, device in search.automatic_devices():
        if pinned is not None:
            return _resolution(spec, device, "its first device", search.notes())
        notes = [*search.notes(), *search.warnings()]
        return _resolution(spec, device, "chosen by auto", notes or ["the first in order"])
    if pinned is not None:
        found = "; ".join(search.notes())
        raise DeviceError(f"Backend {pinned.name!r} has no device that can be used: {found}.")
    notes = [*search.notes(), *search.warnings()] or ["there was nothing to try"]
    raise DeviceError(
        f"No device can be used: {'; '.join(notes)}. What auto tries is [devices] order of "
        f"{search.policy.path}; `octavo devices` shows what is here. On any CPU: "
        "pip install octavo-cpu."
    )


def _resolution(spec: BackendSpec, device: DeviceInfo, how: str, notes: list[str]) -> Resolution:
    why = f": {'; '.join(notes)}" if notes else ""
    return Resolution(spec, device, f"{device.kind}:{device.index} through {spec.name}, {how}{why}")


def load_backend(
    resolution: Resolution, policy: Policy, options: Mapping[str, Any] | None = None
) -> Backend:
    """Load the chosen backend with [options.NAME] of plugins.toml, and check its contract.

    ``options`` are added to those of the file and win over them. Raises BackendError.
    """
    spec = resolution.spec
    merged = {**policy.options.get(spec.name, {}), **(options or {})}
    if len(spec.device_kinds) > 1:
        merged["device_kind"] = resolution.device.kind
    try:
        backend = spec.load(resolution.device.index, merged)
    except OctavoError:
        raise
    except Exception as error:
        raise BackendError(
            f"Backend {spec.name!r} could not be loaded on {resolution.device.kind}:"
            f"{resolution.device.index}: it raised {describe(error)}."
        ) from error
    # Needs NumPy and the whole op protocol, which choosing a device does not.
    from octavo.contract import check_backend

    check_backend(backend, spec.name)
    return backend
