"""GGUF models split over several files: NAME-00001-of-00003.gguf and so on."""

from __future__ import annotations

import re
from pathlib import Path

from octavo.errors import ModelLoadError

__all__ = ["is_later_part", "split_files"]

_SPLIT_NAME = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.gguf")


def is_later_part(file_name: str) -> bool:
    """Whether this is a part of a split model, but not its first."""
    match = _SPLIT_NAME.fullmatch(file_name)
    return match is not None and int(match.group(2)) != 1


def split_files(path: Path) -> list[Path]:
    """All files of the model that ``path`` is (a part of), in order."""
    match = _SPLIT_NAME.fullmatch(path.name)
    if match is None:
        return [path]
    stem, _, count = match.groups()
    paths = [path.with_name(f"{stem}-{i:05}-of-{count}.gguf") for i in range(1, int(count) + 1)]
    missing = [part.name for part in paths if not part.exists()]
    if missing or not paths:
        raise ModelLoadError(
            f"{path}: one of {int(count)} parts, of which {len(missing)} are missing: "
            f"{', '.join(missing[:5])}. Download all parts into one folder"
        )
    return paths
