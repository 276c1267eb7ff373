"""How much memory this process may still take: what the machine has, and what its group allows."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from octavo.backend import MemoryInfo

__all__ = ["host_memory"]

_MAX_GROUP_LIMIT_BYTES = 1 << 60  # control groups of version 1 write a huge number for "no limit"


@dataclass(frozen=True)
class _Usage:
    free_bytes: int
    total_bytes: int


def host_memory() -> MemoryInfo:
    """What this process may still take without pushing anything out, and may take at all.

    For backends whose device memory is the host's own.
    """
    usage = _usage(Path("/"))
    return MemoryInfo(usage.free_bytes, usage.total_bytes, shared_with_host=True)


def _usage(root: Path) -> _Usage:
    """The tightest of the machine and the control groups; ``root`` is ``/`` save in tests."""
    usages = [_machine(root), *_control_groups(root)]
    return _Usage(
        free_bytes=max(0, min(usage.free_bytes for usage in usages)),
        total_bytes=min(usage.total_bytes for usage in usages),
    )


def _machine(root: Path) -> _Usage:
    if sys.platform == "win32":
        return _windows()
    if (root / "proc/meminfo").exists():
        return _linux((root / "proc/meminfo").read_text())
    return _macos()


def _linux(meminfo: str) -> _Usage:
    sizes = {
        name: int(kibibytes) * 1024
        for name, kibibytes in re.findall(r"^(\w+):\s+(\d+) kB$", meminfo, re.MULTILINE)
    }
    return _Usage(sizes.get("MemAvailable", sizes["MemFree"]), sizes["MemTotal"])


def _control_groups(root: Path) -> list[_Usage]:
    """Limits of this process' control group and of the groups around it."""
    usages = []
    for folder, limit_name, used_name in _control_group_folders(root):
        limit = _read_bytes(folder / limit_name)
        used = _read_bytes(folder / used_name)
        if limit is None or used is None or limit >= _MAX_GROUP_LIMIT_BYTES:
            continue
        usages.append(_Usage(limit - used + _reclaimable_bytes(folder), limit))
    return usages


def _control_group_folders(root: Path) -> list[tuple[Path, str, str]]:
    """(folder, name of the limit, name of the usage) from the own group up to the outermost."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            mount = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        own = mount / path.lstrip("/")
        around = [folder for folder in own.parents if folder.is_relative_to(mount)]
        folders += [(folder, *names) for folder in (own, *around)]
    return folders


def _read_bytes(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _reclaimable_bytes(folder: Path) -> int:
    """File cache that counts as used but gives way: it must not hide room for a model."""
    try:
        statistics = (folder / "memory.stat").read_text()
    except OSError:
        return 0
    match = re.search(r"^(?:total_)?inactive_file (\d+)$", statistics, re.MULTILINE)
    return int(match[1]) if match else 0


def _macos() -> _Usage:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        report = subprocess.run(
            ["/usr/bin/vm_stat"], capture_output=True, text=True, check=True, timeout=5
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return _Usage(total, total)
    return _Usage(_parse_vm_stat(report), total)


def _parse_vm_stat(report: str) -> int:
    """Free, inactive and speculative pages in bytes."""
    page_size = re.search(r"page size of (\d+) bytes", report)
    pages = re.findall(r"^Pages (?:free|inactive|speculative):\s+(\d+)", report, re.MULTILINE)
    return int(page_size[1] if page_size else 4096) * sum(map(int, pages))


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load_percent", ctypes.c_uint32),
        ("total_physical", ctypes.c_uint64),
        ("available_physical", ctypes.c_uint64),
        ("total_page_file", ctypes.c_uint64),
        ("available_page_file", ctypes.c_uint64),
        ("total_virtual", ctypes.c_uint64),
        ("available_virtual", ctypes.c_uint64),
        ("available_extended_virtual", ctypes.c_uint64),
    )


def _windows() -> _Usage:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    kernel32 = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined]
    if not kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        raise OSError("GlobalMemoryStatusEx failed: Windows does not say how much memory it has.")
    return _Usage(status.available_physical, status.total_physical)
