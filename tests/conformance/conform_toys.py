"""Three toy checks, a plugin to run them on, and the command that does: for tests of the runner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from octavo.testing.check import Case, Check, CheckFailure
from throwaway_plugins import PREAMBLE, install

FOLDERS = (Path(__file__).parent, Path(__file__).parents[1])

ROWS = tuple(range(1, 10))


def _linear(subject, num_rows):
    weight = np.eye(3, dtype=np.float32)
    prepared = subject.backend.put_linear(weight, None, "float32")
    x = np.ones((num_rows, 3), np.float32)
    found = subject.get(subject.ops.linear(subject.put(x), prepared))
    if not np.array_equal(found, x):
        raise CheckFailure(f"linear of {num_rows} rows by the identity gives {found.max()}, not 1.")


def _has_a_name(subject, _value):
    if not subject.spec.name:
        raise CheckFailure("The backend has no name.")


def _loads(subject, _value):
    try:
        subject.spec.load(0, {}).close()
    except Exception as error:
        raise CheckFailure(f"It does not load: {error}") from error


def _speed(subject, seconds):
    if seconds is None:
        raise CheckFailure("The clock stands still.")
    limits = {"read_bytes_per_s_limit": 4e9, "operations_per_s_limit": float("inf")}
    return {"seconds": seconds, "bytes": 2e6, "operations": np.float64(3e6), **limits}


CHECKS = (
    Check("contract", "name", "It has a name.", "spec.name", _has_a_name),
    Check(
        "ops",
        "linear",
        "linear multiplies.",
        "ops.linear, backend.put_linear",
        _linear,
        lambda _: [
            *(Case(f"rows={rows}", rows, quick=rows < 3) for rows in ROWS),
            Case("int8", 0, unclaimed="caps.quantization has no int8"),
        ],
    ),
    Check(
        "ops",
        "linear_again",
        "linear multiplies twice.",
        "ops.linear",
        _linear,
        lambda _: [Case("rows=1", 1)],
    ),
    Check(
        "performance",
        "linear",
        "Its speed.",
        "ops.linear",
        _speed,
        lambda _: [Case("1x3", 1e-3), Case("stuck", None)],
    ),
)
LOADING_CHECKS = (Check("contract", "loads", "It loads.", "spec.load", _loads), *CHECKS)
CASE_IDS = [
    "contract.name",
    *(f"ops.linear[rows={rows}]" for rows in ROWS),
    "ops.linear[int8]",
    "ops.linear_again[rows=1]",
    "performance.linear[1x3]",
    "performance.linear[stuck]",
]

_PLUGIN = """
def load(index, options):
    from plain_backend import PlainBackend, PlainOps

    class AcmeOps(PlainOps):
        def linear(self, x, weight):
            misbehave(len(x))
            return super().linear(x, weight)

    backend = PlainBackend(index, options)
    backend.ops = AcmeOps()
    return backend


def misbehave(rows):
    pass


@hookimpl
def octavo_register_backends(register):
    register(spec(load=load))
"""


def install_acme(site: Path, source: str = "", gaps: str | None = None) -> None:
    """A backend ``acme`` in a package; ``source`` may define ``misbehave(rows)`` or ``load``."""
    install(site, "acme", entry_points="[octavo.plugins]\nacme = octavo_acme.plugin\n")
    package = site / "octavo_acme"
    package.mkdir()
    (package / "__init__.py").write_text("", "utf-8")
    header = "NAME = 'acme'\nKIND = 'toy'\n" + PREAMBLE
    (package / "plugin.py").write_text(header + _PLUGIN + source, "utf-8")
    if gaps is not None:
        (package / "conformance.toml").write_text(gaps, "utf-8")


def environment(site: Path) -> dict[str, str]:
    """In which ``site`` and the toys can be imported, here and in a worker."""
    home = site.parent / "home"
    home.mkdir(exist_ok=True)
    path = os.pathsep.join(map(str, (site, *FOLDERS)))
    own = {"PYTHONPATH": path, "XDG_CONFIG_HOME": str(home), "APPDATA": str(home)}
    return {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "200", **own}


def conform_command(*arguments: str, checks: str = "CHECKS") -> list[str]:
    """``octavo conform`` with the toy checks in place of the suite."""
    script = (
        f"import octavo.testing.run as run; run.DEFAULT_CHECKS = 'conform_toys:{checks}'; "
        "from octavo.cli.main import main; main()"
    )
    return [sys.executable, "-c", script, "conform", *arguments]


def run_conform(
    site: Path, *arguments: str, checks: str = "CHECKS"
) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        conform_command(*arguments, checks=checks),
        env=environment(site),
        cwd=site,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
