"""Walk the devices that can serve, best first, and remember what was passed over and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from octavo.catalog import CATALOG, entry_for_backend, entry_for_kind
from octavo.errors import DeviceError
from octavo.plugins import Plugins
from octavo.policy import Policy
from octavo.probing import PROBE_TIMEOUT_S, RunningProbe
from octavo.spec import BackendSpec, DeviceInfo
from octavo.suggest import choices, did_you_mean

__all__ = ["DeviceSearch", "is_automatic", "order_backends", "remedy_for_kind"]


def order_backends(kind: str, policy: Policy, plugins: Plugins) -> list[BackendSpec]:
    """The backends for a device kind: as plugins.toml orders them, then the others by name."""
    rank = {name: place for place, name in enumerate(policy.backend_order.get(kind, ()))}
    serving = [spec for spec in plugins.backends.values() if kind in spec.device_kinds]
    return sorted(
        serving, key=lambda spec: (rank.get(spec.name, len(rank)), not spec.automatic, spec.name)
    )


def is_automatic(spec: BackendSpec, kind: str, policy: Policy) -> bool:
    """Whether ``auto`` may choose a backend for a device kind: on its own, or as policy has it."""
    return spec.automatic or spec.name in policy.backend_order.get(kind, ())


def remedy_for_kind(kind: str) -> str:
    """What would make an unserved device kind work."""
    entry = entry_for_kind(kind)
    return entry.remedy if entry else "install a plugin that serves it"


class DeviceSearch:
    """One search for a device. ``backend`` pins one by name; raises DeviceError if unknown."""

    def __init__(self, policy: Policy, plugins: Plugins, backend: str | None) -> None:
        self.policy = policy
        self._plugins = plugins
        self.pinned = None if backend is None else self._backend_named(backend)
        """The one backend that may serve; None if any may."""
        self._unserved_kinds: list[str] = []
        self._passed_over: list[str] = []

    def devices(self, kind: str) -> Iterator[tuple[BackendSpec, DeviceInfo]]:
        """Usable devices of a kind: backends in order, devices by index. Probes as it goes."""
        return self._devices_of(kind, self._serving(kind))

    def automatic_devices(self) -> Iterator[tuple[BackendSpec, DeviceInfo]]:
        """Usable devices that ``auto`` may choose, the best first. Probes as it goes."""
        for kind in self._automatic_kinds():
            serving = self._serving(kind)
            specs = [spec for spec in serving if self.pinned or self._is_automatic(spec, kind)]
            if specs or not serving:
                yield from self._devices_of(kind, specs)
            for spec in serving if not specs else ():
                reason = f"serves who names it, which [devices] {kind} of plugins.toml does not"
                self._pass_over(kind, spec, reason, None)

    def _is_automatic(self, spec: BackendSpec, kind: str) -> bool:
        return is_automatic(spec, kind, self.policy)

    def _devices_of(
        self, kind: str, specs: Sequence[BackendSpec]
    ) -> Iterator[tuple[BackendSpec, DeviceInfo]]:
        if not specs:
            self._unserved_kinds.append(kind)
        for spec in specs:
            # One at a time: a probe may import a framework that the first backend does without.
            result = RunningProbe(spec, PROBE_TIMEOUT_S).result()
            devices = [device for device in result.devices if device.kind == kind]
            if not devices:
                self._pass_over(kind, spec, *result.why_not(kind))
            for device in sorted(devices, key=lambda device: device.index):
                yield spec, device

    def _automatic_kinds(self) -> list[str]:
        """The policy's order; for a pinned backend its own kinds, those in the order first."""
        if self.pinned is None:
            return list(self.policy.device_order)
        own = self.pinned.device_kinds
        ordered = [kind for kind in self.policy.device_order if kind in own]
        return [*ordered, *(kind for kind in own if kind not in ordered)]

    def notes(self) -> list[str]:
        """What was passed over so far."""
        unserved = choices(self._unserved_kinds)
        return [f"no backend is installed for {unserved}"] * bool(self._unserved_kinds) + (
            self._passed_over
        )

    def warnings(self) -> list[str]:
        """What an automatic choice did not even consider."""
        warnings = [
            f"plugin {record.name} of {record.distribution} is broken (see octavo plugins)"
            for record in self._plugins.broken
        ]
        served = {
            kind
            for spec in self._plugins.backends.values()
            for kind in spec.device_kinds
            if spec.automatic
        }
        unordered = sorted(served.difference(self.policy.device_order))
        if unordered and self.pinned is None:
            warnings.append(f"{choices(unordered)} not in [devices] order of {self.policy.path}")
        return warnings

    def check_kind(self, kind: str) -> None:
        """Raise DeviceError unless some backend (the pinned one, if any) serves the kind."""
        if self._serving(kind):
            return
        if self.pinned is not None:
            raise DeviceError(
                f"Backend {self.pinned.name!r} serves {choices(self.pinned.device_kinds)}, "
                f"not {kind}. {self._who_serves(kind)}"
            )
        served = {kind for spec in self._plugins.backends.values() for kind in spec.device_kinds}
        known = sorted(served | {entry.kind for entry in CATALOG})
        if kind not in known:
            raise DeviceError(
                f"Unknown device kind {kind!r}.{did_you_mean(kind, known)} "
                f"Served here: {choices(sorted(served))}. Known: {choices(known)}."
                f"{self._broken_hint()}"
            )
        raise DeviceError(
            f"No installed backend serves {kind!r}: {remedy_for_kind(kind)}. "
            f"Served here: {choices(sorted(served))}.{self._broken_hint()}"
        )

    def _serving(self, kind: str) -> list[BackendSpec]:
        specs = order_backends(kind, self.policy, self._plugins)
        return [spec for spec in specs if self.pinned in (None, spec)]

    def _pass_over(
        self, kind: str, spec: BackendSpec, reason: str | None, install: str | None
    ) -> None:
        text = f"{kind} of backend {spec.name}: {reason or f'its probe found no {kind} device'}"
        self._passed_over.append(text + (f" ({install})" if install else ""))

    def _who_serves(self, kind: str) -> str:
        names = [spec.name for spec in order_backends(kind, self.policy, self._plugins)]
        if names:
            return f"Backends for {kind}: {choices(names)}."
        return f"No installed backend serves {kind}: {remedy_for_kind(kind)}."

    def _backend_named(self, name: str) -> BackendSpec:
        backends = self._plugins.backends
        if name in backends:
            return backends[name]
        raise DeviceError(
            f"No installed backend is called {name!r}.{self._instead_of(name)} "
            f"Installed: {choices(sorted(backends))}.{self._broken_hint()}"
        )

    def _instead_of(self, name: str) -> str:
        """What helps who asks for a backend that is not there, with a space before it."""
        if entry := entry_for_backend(name):
            return f" To get it: {entry.remedy}."
        serving = [spec.name for spec in order_backends(name, self.policy, self._plugins)]
        if serving:
            return f" {name!r} is a kind of device; backends for it: {choices(serving)}."
        if entry := entry_for_kind(name):
            return f" {name!r} is a kind of device; for it: {entry.remedy}."
        return did_you_mean(name, self._plugins.backends)

    def _broken_hint(self) -> str:
        unusable = [record for record in self._plugins.records if record.status != "ok"]
        return "".join(
            f" Plugin {record.name!r} of {record.distribution} is {record.status}: {record.reason}."
            for record in unusable
        )
