"""How many threads pay on this machine: cores that the process may use, and may use in full."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["num_usable_cores", "parse_list", "read_text", "usable_processors"]


def num_usable_cores(root: Path = Path("/"), affinity: frozenset[int] | None = None) -> int:
    """The smallest of what affinity, the control groups' quotas and the physical cores allow.

    ``root`` is ``/`` and ``affinity`` the process's own, save in tests.
    """
    processors = usable_processors() if affinity is None else affinity
    cores = {_siblings(root, processor) & processors for processor in processors}
    return max(1, min(len(cores), *(math.ceil(quota) for quota in _quotas(root)), len(processors)))


def usable_processors() -> frozenset[int]:
    """Those that the system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _siblings(root: Path, processor: int) -> frozenset[int]:
    """The processors that share a core with this one, itself included."""
    topology = root / f"sys/devices/system/cpu/cpu{processor}/topology"
    try:
        listed = (topology / "thread_siblings_list").read_text()
    except OSError:
        return frozenset({processor})
    return parse_list(listed) | {processor}


def parse_list(text: str) -> frozenset[int]:
    """``0-3,8`` in the kernel's way of writing; nothing at all is the empty set."""
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def _quotas(root: Path) -> Iterator[float]:
    """Processors' worth of time that each control group around this process allows."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mounts, read = ["sys/fs/cgroup"], _quota_v2
        elif "cpu" in controllers.split(","):
            mounts, read = [f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"], _quota_v1
        else:
            continue
        for mount in dict.fromkeys(mounts):
            own = root / mount / path.lstrip("/")
            for folder in (own, *own.parents):
                if folder.is_relative_to(root / mount):
                    quota = read(folder)
                    if quota is not None:
                        yield quota


def _quota_v2(folder: Path) -> float | None:
    return _ratio(*(read_text(folder / "cpu.max").split() or ["max", "1"]))


def _quota_v1(folder: Path) -> float | None:
    return _ratio(read_text(folder / "cpu.cfs_quota_us"), read_text(folder / "cpu.cfs_period_us"))


def _ratio(quota_us: str, period_us: str) -> float | None:
    """None for no limit, which is written ``max`` or -1."""
    is_limit = quota_us.isdigit() and period_us.isdigit() and int(quota_us) and int(period_us)
    return int(quota_us) / int(period_us) if is_limit else None


def read_text(path: Path) -> str:
    """What is in a file of the kernel's, without white space around; "" if there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
