"""A virtual environment as a user has it: built wheels and what they depend on, no checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_GENERATE = Path(__file__).with_name("generate_tokens.py")
_PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")
# What would let the checkout, or the environment that runs the tests, shine through.
_OWN_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")

# JAX compiles for most of the time: with little optimisation, and each program once a session.
_QUICK_COMPILATION = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
}


@dataclass(frozen=True)
class CleanEnvironment:
    """Commands run in ``folder``, which is outside the checkout and empty at first."""

    root: Path
    folder: Path
    constraints: Path
    wheels: Mapping[str, Path]
    """By folder in the checkout: ``core``, ``backends/cpu``, ``examples/backend-template``, …"""

    @classmethod
    def create(cls, root: Path, constraints: Path, wheels: Mapping[str, Path]) -> CleanEnvironment:
        folder = root / "elsewhere"
        folder.mkdir()
        subprocess.run([sys.executable, "-m", "venv", root / "venv"], check=True)
        return cls(root, folder, constraints, wheels)

    @property
    def bin(self) -> Path:
        return self.root / "venv" / ("Scripts" if os.name == "nt" else "bin")

    @property
    def variables(self) -> dict[str, str]:
        """The user's own, pip's settings among them, with this environment first on the path."""
        kept = {name: value for name, value in os.environ.items() if name not in _OWN_VARIABLES}
        return {
            **kept,
            "PATH": os.pathsep.join([str(self.bin), os.environ["PATH"]]),
            **_QUICK_COMPILATION,
            "JAX_COMPILATION_CACHE_DIR": str(self.root / "compiled"),
        }

    def run(self, *command: str | Path, folder: Path | None = None) -> str:
        """Standard output of a command of this environment; fails with all that it printed."""
        program = self.bin / command[0]
        ended = subprocess.run(
            [program, *command[1:]],
            cwd=folder or self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if ended.returncode:
            raise AssertionError(
                f"{' '.join(map(str, command))} ended with {ended.returncode}:\n"
                f"{ended.stdout}\n{ended.stderr}"
            )
        return ended.stdout

    def install(self, *requirements: str) -> None:
        """Install distributions, by folder in the checkout or by name, as constraints.txt pins."""
        found = [str(self.wheels.get(each, each)) for each in requirements]
        self.run("python", *_PIP, "install", "-c", self.constraints, *found)

    @contextmanager
    def installed(self, *requirements: str, remove: str) -> Iterator[None]:
        """The same for a while: the distribution ``remove`` is gone afterwards."""
        self.install(*requirements)
        try:
            yield
        finally:
            self.run("python", *_PIP, "uninstall", "--yes", remove)


def build_wheel(folder: Path, target: Path) -> Path:
    """Build one distribution with the build backend at hand; nothing is fetched."""
    before = set(target.glob("*.whl"))
    command = [*_PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", target, folder]
    subprocess.run([sys.executable, *command], check=True)
    (wheel,) = set(target.glob("*.whl")) - before
    return wheel


def generate(
    environment: CleanEnvironment, model: Path, kind: str, cache_bytes: int
) -> dict[str, Any]:
    """What generate_tokens.py reports of a kind of device."""
    report = environment.run("python", _GENERATE, model, kind, str(cache_bytes))
    return json.loads(report.splitlines()[-1])
