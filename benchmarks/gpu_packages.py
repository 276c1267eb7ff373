"""Octavo out of a checkout, nothing installed: its source on the path, its plugins findable.

A GPU machine may have torch and no network. Packages that it lacks come as wheels from elsewhere:

    pip download --no-deps --only-binary :all: --dest build/wheels array-api-compat array-api-extra

What has machine code (llguidance, FlashInfer's parts) is downloaded for the GPU machine's Python
and platform, as pip's manual says. Wheels are unpacked into a temporary folder.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
import tempfile
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTIONS = ("core", "backends/cpu", "backends/torch", "backends/cuda", "backends/rocm")


def provide(wheels: Path) -> list[str]:
    """Put what is missing on this process's path and its children's; lines on what still lacks."""
    metadata = Path(tempfile.mkdtemp(prefix="octavo-packages-"))
    atexit.register(shutil.rmtree, metadata, ignore_errors=True)
    for path in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(metadata)
    added = []
    for folder in DISTRIBUTIONS:
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
        if find_spec(project["name"].replace("-", "_")) is None:
            added.append(str(ROOT / folder / "src"))
        if not _is_known(project["name"]):
            _write_metadata(metadata, project)
    added.append(str(metadata))
    sys.path[:0] = added
    inherited = [path for path in [os.environ.get("PYTHONPATH")] if path]
    os.environ["PYTHONPATH"] = os.pathsep.join(added + inherited)
    return _what_lacks()


def _is_known(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _write_metadata(folder: Path, project: dict[str, object]) -> None:
    """What an installation leaves for importlib.metadata to find: the version, the plugins."""
    name, version = str(project["name"]).replace("-", "_"), project["version"]
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    text = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n"
    (info / "METADATA").write_text(text)
    groups = project.get("entry-points", {})
    assert isinstance(groups, dict)  # noqa: S101 - the table of a file of ours
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def _what_lacks() -> list[str]:
    core = tomllib.loads((ROOT / "core" / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[<>=!~;\[ ]", text)[0] for text in core["dependencies"]] + ["torch"]
    lacking = [name for name in names if find_spec(name.replace("-", "_")) is None]
    if not lacking:
        return []
    return [
        f"Not installed here: {', '.join(lacking)}.",
        "With network: pip install ./core ./backends/torch ./backends/cuda",
        "Without, on a machine that has it, and carry the folder over (--wheels PATH):",
        "  pip download --no-deps --only-binary :all: --dest build/wheels " + " ".join(lacking),
    ]
