"""Checks of what a plugin hands over before anything is loaded: spec, version, probe."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from octavo.discovery import ENTRY_POINT_GROUP, normalized
from octavo.isolation import Fault
from octavo.probing import LISTING_TIMEOUT_S, PROBE_TIMEOUT_S, RunningProbe
from octavo.spec import API_VERSION, BackendSpec
from octavo.spec_checks import check_api_version, check_spec
from octavo.testing import probe_child
from octavo.testing.check import Blocked, Case, Check, CheckFailure, one_case
from octavo.testing.probe_child import ProbeOrder, ProbeReport

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["CHECKS"]


def _spec_cases(subject: Subject) -> Iterable[Case]:
    yield Case("fields", _check_fields)
    if subject.record.module:  # else no installed distribution registers it
        yield Case("distribution", _check_distribution)


def _run_value(subject: Subject, value: Any) -> Any:
    """For tables whose values are the functions that check."""
    return value(subject)


def _check_fields(subject: Subject) -> None:
    if isinstance(subject.spec, BackendSpec) and not _is_served(subject.spec.api_version):
        raise Blocked("contract.api_version: fields of another version may mean something else.")
    try:
        check_spec(subject.spec, BackendSpec, subject.record.distribution)
    except Fault as fault:
        raise CheckFailure(f"The plugin {fault}.") from fault


def _is_served(version: Any) -> bool:
    try:
        check_api_version(version, "")
    except Fault:
        return False
    return True


def _check_distribution(subject: Subject) -> None:
    """The package says where its plugin is, and that it needs Octavo."""
    record = subject.record
    distribution = importlib.metadata.distribution(record.distribution)
    modules = [
        entry_point.value.partition(":")[0].strip()
        for entry_point in distribution.entry_points
        if entry_point.group == ENTRY_POINT_GROUP and entry_point.name == record.name
    ]
    if modules != [record.module]:
        raise CheckFailure(
            f"The metadata of {record.distribution} name {modules or 'no module'} as the plugin "
            f"{record.name!r} of the entry-point group {ENTRY_POINT_GROUP!r}; the plugin that was "
            f"loaded is {record.module!r}. Install the distribution again.",
            look='[project.entry-points."octavo.plugins"] in pyproject.toml',
        )
    required = {normalized(_name_of(text)) for text in distribution.requires or ()}
    if "octavo" not in required and normalized(record.distribution) != "octavo":
        raise CheckFailure(
            f"{record.distribution} does not require octavo (it requires "
            f"{', '.join(sorted(required)) or 'nothing'}): pip would install it without, and no "
            'version of Octavo could be ruled out. Add "octavo" to its dependencies.',
            look="[project] dependencies in pyproject.toml",
        )


def _name_of(requirement: str) -> str:
    match = re.match(r"\s*([A-Za-z0-9._-]+)", requirement)
    return match[1] if match else requirement


def _check_version(subject: Subject, _value: None) -> str | None:
    """This version and the one before are served; the one before is a note."""
    version = subject.spec.api_version
    try:
        check_api_version(version, subject.record.distribution)
    except Fault as fault:
        raise CheckFailure(f"The backend {fault}.") from fault
    return version_note(version, API_VERSION)


def version_note(version: int, current: int) -> str | None:
    """What to say of a version that is served."""
    if version == current:
        return None
    return (
        f"api_version={version} is deprecated: this octavo serves it for the last time. "
        f"Move to api_version={current}."
    )


def _probe_cases(_subject: Subject) -> Iterable[Case]:
    yield Case("here", _check_probe_here)
    yield Case("without its framework", _check_probe_alone)


def _check_probe_here(subject: Subject) -> None:
    """It sees the device that the suite runs on, twice in the same way."""
    first, second = (RunningProbe(subject.spec, PROBE_TIMEOUT_S).result() for _ in range(2))
    for result in (first, second):
        if result.status in ("failed", "hung"):
            raise CheckFailure(
                f"On this machine, {result.reason}. A probe returns the devices it sees, or a "
                "Probe with a reason; it never raises."
            )
    places = [[(each.kind, each.index) for each in result.devices] for result in (first, second)]
    if places[0] != places[1]:
        raise CheckFailure(f"The probe saw {places[0]}, and a moment later {places[1]}.")
    device = subject.resolution.device
    if (device.kind, device.index) not in places[0]:
        raise CheckFailure(
            f"The probe saw {places[0]}, among which {device.kind}:{device.index}, the device that "
            f"this suite runs on, is not. Its reason: {first.reason}."
        )


def _check_probe_alone(subject: Subject) -> None:
    """Where what it needs is not installed, it says so."""
    report = _probe_in_child(subject, without_frameworks=True)
    surroundings = "Where nothing but Python, octavo, pluggy and the plugin's own package can be"
    if report.import_raised is not None:
        raise CheckFailure(
            f"{surroundings} imported, importing the plugin's module raises "
            f"{report.import_raised}. Import the framework within probe() and load().",
            look="the plugin's module",
        )
    if report.probe_raised is not None:
        raise CheckFailure(
            f"{surroundings} imported, the probe raises {report.probe_raised}. Catch it, and "
            "return Probe(reason=..., install=...)."
        )
    if report.fault is not None:
        raise CheckFailure(f"{surroundings} imported, the probe {report.fault}.")
    if not report.num_devices and not (report.reason and report.install):
        raise CheckFailure(
            f"{surroundings} imported, the probe sees no device and gives reason={report.reason!r} "
            f"and install={report.install!r}. Say why there is none, and what to install."
        )


def _light_cases(_subject: Subject) -> Iterable[Case]:
    yield Case("plugin module", _check_plugin_imports)
    yield Case("probe", _check_probe_imports)
    yield Case("time", _check_probe_time)


def _check_plugin_imports(subject: Subject) -> None:
    report = _probe_in_child(subject)
    if report.import_raised is not None:
        raise CheckFailure(f"Importing the plugin's module raises {report.import_raised}.")
    if report.imported_by_plugin:
        raise CheckFailure(
            f"Importing the plugin's module imports {', '.join(report.imported_by_plugin)}. It may "
            "import octavo.api and the standard library: import everything else within the "
            "functions that need it.",
            look="the plugin's module, and what it imports of its own package",
        )


def _check_probe_imports(subject: Subject) -> None:
    """A probe may import its framework only as a declared gap.

    The plugin system bears it: what the probe raises is caught, and a slow one is left behind. But
    everybody who lists devices pays, so a package that cannot see its devices otherwise says so in
    its conformance.toml, for this case alone. For the plugin's module there is no such excuse.
    """
    report = _probe_in_child(subject)
    if report.imported_by_probe:
        raise CheckFailure(
            f"The probe imports {', '.join(report.imported_by_probe)}. `octavo devices` calls it "
            "for everybody who has the plugin installed. Ask the driver or the system instead "
            "(importlib.util.find_spec tells whether a package is there without importing it)."
        )


def _check_probe_time(subject: Subject) -> None:
    """A second try forgives a machine that was busy, or cold, at the first."""
    report = _probe_in_child(subject)
    if report.seconds > LISTING_TIMEOUT_S:
        _probe_in_child_once.cache_clear()
        report = _probe_in_child(subject)
    if report.seconds > LISTING_TIMEOUT_S:
        raise CheckFailure(
            f"Importing the plugin's module and probing took {report.seconds:.1f} s, twice; "
            f"`octavo devices` waits {LISTING_TIMEOUT_S:g} s."
        )


def _probe_in_child(subject: Subject, *, without_frameworks: bool = False) -> ProbeReport:
    spec, plugin_module = subject.spec, subject.record.module
    modules = [plugin_module, *(_home(function)[0] for function in (spec.probe, spec.load))]
    probe_module, probe_name = _home(spec.probe)
    order = ProbeOrder(
        backend=spec.name,
        plugin_module=plugin_module,
        probe_module=probe_module,
        probe_name=probe_name,
        path=tuple(sys.path),
        own_packages=tuple(sorted({module.partition(".")[0] for module in modules if module})),
        without_frameworks=without_frameworks,
    )
    return _probe_in_child_once(order)


def _home(function: Any) -> tuple[str, str]:
    """(module, qualified name); both empty for an object without."""
    unnamed = "<unnamed>"
    return getattr(function, "__module__", None) or "", getattr(function, "__qualname__", unnamed)


@functools.lru_cache(maxsize=8)
def _probe_in_child_once(order: ProbeOrder) -> ProbeReport:
    """The report of a process of its own. Raises CheckFailure if there is none."""
    command = [sys.executable, "-P", probe_child.__file__, json.dumps(asdict(order))]
    try:
        ended = subprocess.run(  # noqa: S603 - our own script
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CheckFailure(
            f"In a process of its own, the probe gave no answer within {PROBE_TIMEOUT_S:g} s."
        ) from error
    lines = ended.stdout.splitlines()
    try:
        return ProbeReport(**json.loads(lines[-1]))
    except (IndexError, ValueError, TypeError) as error:
        said = ended.stderr.strip().splitlines()
        raise CheckFailure(
            f"In a process of its own, the probe ended the process with code {ended.returncode} "
            f"instead of returning. The last line it wrote: {said[-1] if said else 'none'}"
        ) from error


CHECKS: tuple[Check, ...] = (
    Check(
        "contract",
        "spec",
        "the backend is registered with everything a listing shows, by a package that says so",
        "spec: the BackendSpec that the plugin registers",
        _run_value,
        _spec_cases,
    ),
    Check(
        "contract",
        "api_version",
        "the plugin speaks a version of the interface that this octavo serves",
        "spec.api_version",
        _check_version,
        one_case,
    ),
    Check(
        "contract",
        "probe",
        "the probe returns devices or a reason, wherever it is called",
        "spec.probe",
        _run_value,
        _probe_cases,
    ),
    Check(
        "contract",
        "probe_is_light",
        "listing devices imports no framework and keeps nobody waiting",
        "spec.probe, and what it imports",
        _run_value,
        _light_cases,
    ),
)
