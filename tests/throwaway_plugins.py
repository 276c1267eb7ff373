"""Distributions for one test: real metadata and modules in a folder put on the import path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PREAMBLE = """
from octavo.api import *
from octavo.api import hookimpl
import time

def spec(**changes):
    fields = dict(
        name=NAME, device_kinds=(KIND,), summary="throw-away",
        probe=lambda: Probe(devices=(DeviceInfo(KIND, 0, "a device"),)),
        load=lambda index, options: None, api_version=API_VERSION,
    )
    return BackendSpec(**{**fields, **changes})
"""

HEALTHY = """
@hookimpl
def octavo_register_backends(register):
    register(spec())
"""


def install(
    site: Path,
    plugin: str,
    source: str = HEALTHY,
    *,
    distribution: str | None = None,
    entry_points: str | None = None,
    backend: str | None = None,
    kind: str = "toy",
) -> str:
    """Install a distribution with one plugin into ``site``; returns the distribution's name."""
    distribution = distribution or f"octavo-{plugin}"
    module = distribution.replace("-", "_") + "_plugin"
    header = f"NAME = {(backend or plugin)!r}\nKIND = {kind!r}\n" + PREAMBLE
    site.mkdir(parents=True, exist_ok=True)
    (site / f"{module}.py").write_text(header + source, encoding="utf-8")
    metadata = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    text = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
    (metadata / "METADATA").write_text(text, encoding="utf-8")
    points = entry_points or f"[octavo.plugins]\n{plugin} = {module}\n"
    (metadata / "entry_points.txt").write_text(points, encoding="utf-8")
    return distribution


def run_octavo(
    site: Path, *arguments: str, environ: dict[str, str] | None = None, time_limit_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, with ``site`` on its import path."""
    home = site.parent / "home"
    home.mkdir(exist_ok=True)
    own = {"PYTHONPATH": str(site), "XDG_CONFIG_HOME": str(home), "APPDATA": str(home)}
    return subprocess.run(
        [sys.executable, "-m", "octavo.cli.main", *arguments],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "200", **own, **(environ or {})},
        cwd=home,
        capture_output=True,
        encoding="utf-8",
        timeout=time_limit_s,
        check=False,
    )
