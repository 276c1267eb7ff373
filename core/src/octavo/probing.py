"""Ask backends which devices they see, concurrently and under a time limit."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from octavo.isolation import Fault, GuardedCall, time_limit_s
from octavo.spec import BackendSpec, DeviceInfo, Lacking, Probe

__all__ = [
    "LISTING_TIMEOUT_S",
    "PROBE_TIMEOUT_S",
    "PROBE_TIMEOUT_VARIABLE",
    "ProbeResult",
    "RunningProbe",
    "check_probe",
    "probe_all",
]

LISTING_TIMEOUT_S = 2.0
"""How long a listing waits for probes."""

PROBE_TIMEOUT_S = 20.0
"""How long choosing a device waits for one: importing a framework cold may take seconds."""

PROBE_TIMEOUT_VARIABLE = "OCTAVO_PROBE_TIMEOUT_S"


@dataclass(frozen=True)
class ProbeResult:
    """What became of one backend's probe.

    ``absent`` is an honest "no device here" from the backend, with its reason and remedy;
    ``failed`` and ``hung`` are faults of the backend.
    """

    backend: str
    status: Literal["present", "absent", "failed", "hung"]
    devices: tuple[DeviceInfo, ...] = ()
    reason: str | None = None
    install: str | None = None
    lacking: tuple[Lacking, ...] = ()

    def why_not(self, kind: str) -> tuple[str | None, str | None]:
        """(reason, what helps) where it has no device of the kind."""
        for each in self.lacking:
            if each.kind == kind:
                return each.reason, each.install
        return self.reason, self.install


class RunningProbe:
    """A probe under way, in a thread of its own, with its deadline."""

    def __init__(self, spec: BackendSpec, default_timeout_s: float) -> None:
        self._spec = spec
        self._limit_s = time_limit_s(PROBE_TIMEOUT_VARIABLE, default_timeout_s)
        self._deadline_s = time.monotonic() + self._limit_s
        self._call: GuardedCall[Any] = GuardedCall(spec.probe, f"probe of {spec.name}")

    def result(self) -> ProbeResult:
        """The result, waited for until the deadline; never raises for the backend's faults."""
        hint = f" ({self._limit_s:g} s; ${PROBE_TIMEOUT_VARIABLE} changes the limit)"
        try:
            probe = self._call.result(self._deadline_s, hint)
            check_probe(probe, self._spec)
        except Fault as fault:
            status: Literal["failed", "hung"] = "hung" if self._call.is_running else "failed"
            return ProbeResult(self._spec.name, status, reason=f"its probe {fault}")
        if probe.devices:
            return ProbeResult(self._spec.name, "present", probe.devices, lacking=probe.lacking)
        reason = probe.reason or "found no device and gave no reason"
        return ProbeResult(self._spec.name, "absent", (), reason, probe.install, probe.lacking)


def probe_all(
    specs: Iterable[BackendSpec], timeout_s: float = LISTING_TIMEOUT_S
) -> dict[str, ProbeResult]:
    """Probe all backends at the same time; results by backend name."""
    running = {spec.name: RunningProbe(spec, timeout_s) for spec in specs}
    return {name: probe.result() for name, probe in running.items()}


def check_probe(probe: Any, spec: BackendSpec) -> None:
    """Raise Fault unless a probe returned what the contract says."""
    if not isinstance(probe, Probe):
        raise Fault(f"returned an object of type {type(probe).__name__}; expected octavo.api.Probe")
    if not isinstance(probe.devices, tuple):
        raise Fault(f"returned devices of type {type(probe.devices).__name__}; expected a tuple")
    for text in (probe.reason, probe.install):
        if text is not None and not isinstance(text, str):
            raise Fault(f"returned a text of type {type(text).__name__}; expected a string or None")
    if not all(isinstance(each, Lacking) for each in probe.lacking):
        raise Fault(f"returned lacking={probe.lacking!r}; expected a tuple of octavo.api.Lacking")
    for device in probe.devices:
        _check_device(device, spec)
    places = [(device.kind, device.index) for device in probe.devices]
    if len(set(places)) < len(places):
        raise Fault(f"returned one device twice: {places}")


def _check_device(device: Any, spec: BackendSpec) -> None:
    if not isinstance(device, DeviceInfo):
        raise Fault(f"returned a device of type {type(device).__name__}; expected DeviceInfo")
    if device.kind not in spec.device_kinds:
        raise Fault(
            f"returned a device of kind {device.kind!r}; it registered {spec.device_kinds!r}"
        )
    is_good = (
        isinstance(device.index, int)
        and device.index >= 0
        and isinstance(device.name, str)
        and isinstance(device.total_bytes, int | None)
    )
    if not is_good:
        raise Fault(
            f"returned {device!r}; expected an index from 0, a name, and total_bytes or None"
        )
