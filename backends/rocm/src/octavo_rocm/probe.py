"""Which AMD GPUs can be used, or why none can, and what helps; from sysfs, without torch."""

from __future__ import annotations

import os
from pathlib import Path

from octavo.api import DeviceInfo, Probe
from octavo_rocm.architectures import ARCHITECTURES
from octavo_rocm.topology import GpuNode, gpu_nodes, visible
from octavo_torch.installed_torch import find_torch

__all__ = ["probe"]

_VARIABLES = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")


def probe(root: Path = Path("/")) -> Probe:
    """Every device, with HIP's numbers."""
    driver = root / "dev/kfd"
    if not driver.exists():
        return Probe(
            reason="there is no AMD compute driver (/dev/kfd is not there)",
            install="the amdgpu driver of ROCm; for a container, "
            "--device=/dev/kfd --device=/dev/dri",
        )
    if not os.access(driver, os.R_OK | os.W_OK):
        return Probe(
            reason="/dev/kfd may not be opened by this user",
            install="sudo usermod -aG render,video $USER, and log in again",
        )
    there = gpu_nodes(root)
    if not there:
        return Probe(
            reason="the AMD driver shows no GPU",
            install="look at `rocminfo` and `dmesg | grep amdgpu`",
        )
    nodes = visible(there, os.environ)
    if not nodes:
        named = ", ".join(f"{each}={os.environ[each]}" for each in _VARIABLES if each in os.environ)
        return Probe(
            reason=f"{named} leaves none of {len(there)} GPUs", install="unset it, or name others"
        )
    return _torch_problem() or _usable(nodes)


def _torch_problem() -> Probe | None:
    installed = find_torch()
    if installed is None:
        return Probe(reason="torch is not installed", install="torch's ROCm build (pytorch.org)")
    if installed.hip is None:
        return Probe(
            reason=f"torch {installed.version} is built {installed.built_for}, not for ROCm",
            install="pip uninstall torch, then install its ROCm build (pytorch.org says how)",
        )
    return None


def _usable(nodes: list[GpuNode]) -> Probe:
    devices = tuple(
        DeviceInfo("rocm", index, node.name, node.total_bytes or None)
        for index, node in enumerate(nodes)
        if node.arch in ARCHITECTURES
    )
    if devices:
        return Probe(devices=devices)
    found = ", ".join(sorted({node.arch for node in nodes}))
    return Probe(
        reason=f"there are no kernels for {found}; served are {', '.join(ARCHITECTURES)}",
        install="another GPU, or --device cpu",
    )
