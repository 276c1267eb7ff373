"""Which nodes a machine's memory has that this process computes on: the sockets, mostly."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from octavo_cpu.cores import parse_list, read_text, usable_processors

__all__ = ["usable_nodes"]

_NODES = "sys/devices/system/node"


def usable_nodes(root: Path = Path("/"), affinity: frozenset[int] | None = None) -> list[int]:
    """Nodes with memory that the process may have and processors that it may run on.

    Those without processors are left out: they are slower memory, or a graphics card's. ``root`` is
    ``/`` and ``affinity`` the process's own, save in tests. Empty where the system does not say.
    """
    processors = usable_processors() if affinity is None else affinity
    folder = root / _NODES
    with_memory = read_text(folder / "has_memory") or read_text(folder / "online")
    nodes = parse_list(with_memory)
    allowed = _allowed(read_text(root / "proc/self/status").splitlines())
    if allowed is not None:
        nodes &= allowed
    return sorted(
        node for node in nodes if parse_list(read_text(folder / f"node{node}/cpulist")) & processors
    )


def _allowed(status: Iterable[str]) -> frozenset[int] | None:
    """What the control groups allow; None where nothing is said."""
    for line in status:
        name, _, value = line.partition(":")
        if name == "Mems_allowed_list":
            return parse_list(value)
    return None
