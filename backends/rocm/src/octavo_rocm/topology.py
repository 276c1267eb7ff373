"""The GPUs that the amdgpu driver shows in sysfs, in the order in which HIP numbers them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["GpuNode", "gpu_nodes", "visible"]

_NODES = "sys/class/kfd/kfd/topology/nodes"
_AMD = 4098


@dataclass(frozen=True)
class GpuNode:
    """One GPU of the compute driver's topology."""

    arch: str
    """``gfx942``."""
    name: str
    total_bytes: int
    unique_id: str
    """As HIP prints it: ``GPU-`` and 16 hexadecimal digits; empty where the driver tells none."""


def gpu_nodes(root: Path) -> list[GpuNode]:
    """Of the file tree below ``root``, which is ``/`` but in tests. Processors are left out."""
    folder = root / _NODES
    if not folder.is_dir():
        return []
    numbers = sorted(int(node.name) for node in folder.iterdir() if node.name.isdecimal())
    nodes = [_read_node(root, folder / str(number)) for number in numbers]
    return [node for node in nodes if node is not None]


def _read_node(root: Path, node: Path) -> GpuNode | None:
    facts = _properties(node / "properties")
    if not facts.get("simd_count") or facts.get("vendor_id") != _AMD:
        return None
    device = root / f"sys/class/drm/renderD{facts.get('drm_render_minor', 0)}/device"
    arch = _arch(facts.get("gfx_target_version", 0))
    unique_id = facts.get("unique_id", 0)
    return GpuNode(
        arch=arch,
        name=f"{_text(device / 'product_name') or 'AMD GPU'} ({arch})",
        total_bytes=int(_text(device / "mem_info_vram_total") or 0),
        unique_id=f"GPU-{unique_id:016x}" if unique_id else "",
    )


def _arch(version: int) -> str:
    """90402 is gfx942: decimal major, minor and stepping, of which the last two are hexadecimal."""
    major, minor, stepping = version // 10_000, version // 100 % 100, version % 100
    return f"gfx{major}{minor:x}{stepping:x}"


def _properties(file: Path) -> dict[str, int]:
    pairs = (line.split() for line in _text(file).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def visible(nodes: list[GpuNode], environment: Mapping[str, str]) -> list[GpuNode]:
    """Those that the runtime's variables leave, in the order that they give.

    ROCR_VISIBLE_DEVICES chooses among all, and HIP_VISIBLE_DEVICES (or CUDA_VISIBLE_DEVICES, which
    HIP reads where the other is not set) among those. A list ends at the first entry that is
    nobody's, as it does in HIP.
    """
    hip = "HIP_VISIBLE_DEVICES" if "HIP_VISIBLE_DEVICES" in environment else "CUDA_VISIBLE_DEVICES"
    for variable in ("ROCR_VISIBLE_DEVICES", hip):
        if variable in environment:
            nodes = _chosen(nodes, environment[variable])
    return nodes


def _chosen(nodes: list[GpuNode], names: str) -> list[GpuNode]:
    chosen: list[GpuNode] = []
    for name in (each.strip() for each in names.split(",")):
        if name.isdecimal() and int(name) < len(nodes):
            chosen.append(nodes[int(name)])
            continue
        named = [node for node in nodes if node.unique_id and node.unique_id == name]
        if not named:
            break
        chosen += named
    return chosen
