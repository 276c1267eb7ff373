"""What `pip install octavo octavo-cpu` puts on disk, by package, in a fresh virtual environment.

Counted are all files of site-packages, compiled bytecode among them, less pip itself. Octavo's two
packages are built as wheels first, as they would be published.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from collections import Counter
from importlib.metadata import Distribution, distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_COUNTED = {"pip", "setuptools"}  # they came with the environment
LIMIT_BYTES = 150_000_000


def build_wheels(folder: Path) -> list[str]:
    """Wheels of core and the CPU backend, built with the build tools of this environment."""
    # fmt: off
    subprocess.run(
        [
            sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
            "--wheel-dir", str(folder), str(ROOT / "core"), str(ROOT / "backends" / "cpu"),
        ],
        check=True,
    )
    # fmt: on
    return [str(path) for path in sorted(folder.glob("*.whl"))]


def install(wheels: list[str], folder: Path) -> Path:
    """A fresh environment with the wheels and their dependencies; returns its site-packages."""
    venv.create(folder, with_pip=True)
    (python,) = [*folder.glob("bin/python"), *folder.glob("Scripts/python.exe")]
    constraints = str(ROOT / "constraints.txt")
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "-c", constraints, *wheels], check=True
    )
    (site_packages,) = [*folder.glob("lib/*/site-packages"), *folder.glob("Lib/site-packages")]
    return site_packages


def installed_bytes(distribution: Distribution) -> int:
    """Bytes of the files that pip recorded, and of the bytecode that it compiled from them."""
    paths = {Path(str(file.locate())).resolve() for file in distribution.files or ()}
    return sum(path.stat().st_size for path in paths if path.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="octavo-size-") as folder:
        wheels = build_wheels(Path(folder) / "wheels")
        site_packages = install(wheels, Path(folder) / "env")
        sizes = Counter(
            {
                distribution.metadata["Name"]: installed_bytes(distribution)
                for distribution in distributions(path=[str(site_packages)])
                if distribution.metadata["Name"] not in NOT_COUNTED
            }
        )
    for name, size_bytes in sizes.most_common():
        print(f"{name:<22}{size_bytes / 1e6:>8.2f} MB")
    total_bytes = sizes.total()
    print(f"{'total':<22}{total_bytes / 1e6:>8.2f} MB, the limit is {LIMIT_BYTES / 1e6:.0f} MB")
    if arguments.json:
        arguments.json.write_text(json.dumps(sizes, indent=2) + "\n")
    return 0 if total_bytes < LIMIT_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
