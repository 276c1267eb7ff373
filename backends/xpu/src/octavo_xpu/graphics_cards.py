"""Intel GPUs that the kernel shows in sysfs: what is there, whether or not it can be used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["GraphicsCard", "graphics_cards"]

_INTEL = "0x8086"


@dataclass(frozen=True)
class GraphicsCard:
    """One render node."""

    device_id: int
    driver: str
    """The kernel module that serves it: ``i915`` or ``xe``."""
    node: Path
    """The file in ``/dev/dri`` that programs open."""

    @property
    def may_be_opened(self) -> bool:
        """Whether this user may."""
        return os.access(self.node, os.R_OK | os.W_OK)


def graphics_cards(root: Path) -> list[GraphicsCard]:
    """Of the file tree below ``root``, which is ``/`` but in tests."""
    found = []
    for entry in sorted((root / "sys/class/drm").glob("renderD*")):
        device = entry / "device"
        if _text(device / "vendor") != _INTEL:
            continue
        device_id = _text(device / "device")
        driver = (device / "driver").resolve().name if (device / "driver").exists() else "no driver"
        found.append(GraphicsCard(int(device_id or "0", 16), driver, root / "dev/dri" / entry.name))
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
