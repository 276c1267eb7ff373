"""Everything there is to say about devices here: usable, unusable with the remedy, broken."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from octavo.catalog import CATALOG
from octavo.device_search import is_automatic, order_backends, remedy_for_kind
from octavo.plugins import Plugins, load_plugins
from octavo.policy import Policy, load_policy
from octavo.probing import ProbeResult, probe_all
from octavo.spec import BackendSpec, DeviceInfo

__all__ = ["Broken", "DeviceListing", "ListedDevice", "Unusable", "list_devices"]


@dataclass(frozen=True)
class ListedDevice:
    """A usable device, and the backends that serve it, the preferred one first."""

    info: DeviceInfo
    backends: tuple[str, ...]
    is_automatic: bool = False  # what --device auto chooses


@dataclass(frozen=True)
class Unusable:
    """A device kind that nothing serves here, or a backend that sees no device."""

    kind: str
    backend: str | None
    reason: str
    remedy: str | None


@dataclass(frozen=True)
class Broken:
    """A plugin or a probe that failed."""

    plugin: str
    distribution: str
    reason: str


@dataclass(frozen=True)
class DeviceListing:
    """What is here, what is not, and what is broken."""

    devices: tuple[ListedDevice, ...]
    unusable: tuple[Unusable, ...]
    broken: tuple[Broken, ...]


def list_devices(
    policy: Policy | None = None, plugins: Plugins | None = None, *, everything: bool = False
) -> DeviceListing:
    """Probe every backend, all at once, and sort what they say.

    What is no hardware (``BackendSpec.automatic`` is False) is listed where policy names it, and
    with ``everything``.
    """
    policy = policy if policy is not None else load_policy()
    plugins = plugins if plugins is not None else load_plugins(policy)
    if not everything:
        plugins = _without_unnamed(policy, plugins)
    results = probe_all(plugins.backends.values())
    return DeviceListing(
        devices=tuple(_usable(policy, plugins, results)),
        unusable=tuple(_unusable(policy, plugins, results)),
        broken=tuple(_broken(plugins, results)),
    )


def _without_unnamed(policy: Policy, plugins: Plugins) -> Plugins:
    """Without the backends that serve only who names them, and that nobody has named."""

    def is_shown(spec: BackendSpec) -> bool:
        return any(is_automatic(spec, kind, policy) for kind in spec.device_kinds)

    return Plugins(
        tuple(
            replace(record, backends=tuple(filter(is_shown, record.backends)))
            for record in plugins.records
        )
    )


def _kinds(policy: Policy, plugins: Plugins) -> list[str]:
    """All kinds, those of the policy first and in its order."""
    served = sorted(kind for spec in plugins.backends.values() for kind in spec.device_kinds)
    known = [entry.kind for entry in CATALOG if not entry.needs]
    return list(dict.fromkeys([*policy.device_order, *served, *known]))


def _usable(
    policy: Policy, plugins: Plugins, results: dict[str, ProbeResult]
) -> Iterable[ListedDevice]:
    has_automatic = False
    for kind in _kinds(policy, plugins):
        found: dict[int, list[tuple[str, DeviceInfo]]] = {}
        for spec in order_backends(kind, policy, plugins):
            for device in results[spec.name].devices:
                if device.kind == kind:
                    found.setdefault(device.index, []).append((spec.name, device))
        for rank, index in enumerate(sorted(found)):
            backends = tuple(name for name, _ in found[index])
            may_be = any(is_automatic(plugins.backends[name], kind, policy) for name in backends)
            is_chosen = rank == 0 and may_be and kind in policy.device_order and not has_automatic
            has_automatic = has_automatic or is_chosen
            yield ListedDevice(found[index][0][1], backends, is_chosen)


def _unusable(
    policy: Policy, plugins: Plugins, results: dict[str, ProbeResult]
) -> Iterable[Unusable]:
    for kind in _kinds(policy, plugins):
        specs = order_backends(kind, policy, plugins)
        if not specs:
            yield Unusable(kind, None, "no backend is installed", remedy_for_kind(kind))
        for spec in specs:
            result = results[spec.name]
            reason, install = result.why_not(kind)
            is_lacking = any(each.kind == kind for each in result.lacking)
            if result.status == "absent" or is_lacking:
                yield Unusable(kind, spec.name, reason or "", install)


def _broken(plugins: Plugins, results: dict[str, ProbeResult]) -> Iterable[Broken]:
    for record in plugins.broken:
        yield Broken(record.name, record.distribution, record.reason or "")
    for record in plugins.records:
        for spec in record.backends:
            result = results[spec.name]
            if result.status in ("failed", "hung"):
                reason = f"backend {spec.name}: {result.reason}"
                yield Broken(record.name, record.distribution, reason)
