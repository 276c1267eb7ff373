"""Which torch is installed, read off its files: importing it takes seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

__all__ = ["InstalledTorch", "find_torch"]

_ENTRY = re.compile(r"^(\w+)\s*(?::[^=]*)?=\s*['\"]([^'\"]*)['\"]", re.MULTILINE)


@dataclass(frozen=True)
class InstalledTorch:
    """What ``torch/version.py`` says."""

    version: str
    cuda: tuple[int, int] | None
    hip: str | None
    xpu: str | None = None
    """The oneAPI that it is built with."""

    @property
    def built_for(self) -> str:
        """In words."""
        if self.cuda is not None:
            return f"for CUDA {self.cuda[0]}.{self.cuda[1]}"
        if self.xpu is not None:
            return "for Intel GPUs"
        return "for the CPU alone" if self.hip is None else f"for ROCm {self.hip}"


def find_torch() -> InstalledTorch | None:
    """None where there is none."""
    spec = find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0]) / "version.py"
    entries = dict(_ENTRY.findall(file.read_text("utf-8"))) if file.is_file() else {}
    major, _, minor = entries.get("cuda", "").partition(".")
    cuda = (
        (int(major), int(minor or 0)) if major.isdecimal() and (minor or "0").isdecimal() else None
    )
    return InstalledTorch(
        entries.get("__version__", "of an unknown version"),
        cuda,
        entries.get("hip"),
        entries.get("xpu"),
    )
