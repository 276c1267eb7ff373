"""Imports a plugin's module and calls its probe in a process of its own, and says what came of it.

Run as a script, so that only the standard library is imported before the plugin is.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["ProbeOrder", "ProbeReport"]


@dataclass(frozen=True)
class ProbeOrder:
    """Which probe to call, and in what surroundings."""

    backend: str
    plugin_module: str  # what the entry point names; "" if no installed plugin registers it
    probe_module: str
    probe_name: str
    path: tuple[str, ...]  # sys.path
    own_packages: tuple[str, ...]  # top-level packages that are the plugin's
    without_frameworks: bool = False  # nothing can be imported that the others do not need

    @property
    def allowed_packages(self) -> frozenset[str]:
        """What listing devices may import: Python, Octavo, pluggy and the plugin itself."""
        return frozenset({*sys.stdlib_module_names, "octavo", "pluggy", *self.own_packages})


@dataclass
class ProbeReport:
    """What became of it; ``raised`` and ``fault`` are None if all is well."""

    seconds: float = 0.0  # of importing the plugin and probing together
    imported_by_plugin: list[str] = field(default_factory=list)  # foreign top-level packages
    imported_by_probe: list[str] = field(default_factory=list)
    import_raised: str | None = None
    probe_raised: str | None = None
    fault: str | None = None  # what is wrong with what the probe returned
    num_devices: int = 0
    reason: str | None = None
    install: str | None = None


class _OnlyAllowed:
    """Stands for all finders of modules, and finds those of the allowed packages only."""

    def __init__(self, finders: list[Any], allowed: frozenset[str]) -> None:
        self._finders = finders
        self._allowed = allowed

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """None for what is not allowed, as where it is not installed."""
        if name.partition(".")[0] not in self._allowed:
            return None
        found = (finder.find_spec(name, path, target) for finder in self._finders)
        return next((spec for spec in found if spec is not None), None)

    def find_distributions(self, *arguments: Any) -> Iterator[Any]:
        """Metadata of every distribution, for plugins that read their own."""
        for finder in self._finders:
            if hasattr(finder, "find_distributions"):
                yield from finder.find_distributions(*arguments)


def carry_out(order: ProbeOrder) -> ProbeReport:
    """Import, probe, and note what was imported meanwhile."""
    report = ProbeReport()
    sys.path[:] = order.path
    at_start = _packages()
    if order.without_frameworks:
        allowed = order.allowed_packages | at_start
        finders: list[Any] = [_OnlyAllowed(list(sys.meta_path), allowed)]
        sys.meta_path[:] = finders
    foreign_before = at_start | order.allowed_packages
    started_s = time.perf_counter()
    try:
        probe = _find_probe(order)
    except BaseException as error:  # noqa: BLE001 - a plugin's code may raise anything
        report.import_raised = _in_one_line(error)
        return report
    after_import = _packages()
    report.imported_by_plugin = sorted(after_import - foreign_before)
    try:
        returned = probe()
    except BaseException as error:  # noqa: BLE001
        report.probe_raised = _in_one_line(error)
    else:
        report.seconds = time.perf_counter() - started_s
        _describe(returned, report)
    report.imported_by_probe = sorted(_packages() - after_import - foreign_before)
    return report


def _find_probe(order: ProbeOrder) -> Callable[[], Any]:
    plugin = importlib.import_module(order.plugin_module or order.probe_module)
    if "<" not in order.probe_name:  # neither a lambda nor defined within a function
        probe: Any = importlib.import_module(order.probe_module)
        for part in order.probe_name.split("."):
            probe = getattr(probe, part)
        return probe  # type: ignore[no-any-return]
    specs: dict[str, Any] = {}
    plugin.octavo_register_backends(register=lambda spec: specs.setdefault(spec.name, spec))
    return specs[order.backend].probe  # type: ignore[no-any-return]


def _describe(returned: Any, report: ProbeReport) -> None:
    from octavo.spec import Probe

    if not isinstance(returned, Probe):
        report.fault = f"returned an object of type {type(returned).__name__}; expected a Probe"
        return
    report.num_devices = len(returned.devices)
    report.reason, report.install = returned.reason, returned.install


def _packages() -> frozenset[str]:
    """Top-level names of what is loaded, save private parts, whose packages show up as well."""
    names = (name.partition(".")[0] for name in list(sys.modules))
    return frozenset(name for name in names if not name.startswith("_"))


def _in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def main() -> None:
    """Read an order from the command line; the report is the last line of standard output."""
    arguments = json.loads(sys.argv[1])
    report = carry_out(ProbeOrder(**arguments))
    sys.stdout.write("\n" + json.dumps(asdict(report)) + "\n")


if __name__ == "__main__":
    main()
