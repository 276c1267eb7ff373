"""Which Intel GPUs can be used, or why none can, and what helps."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from octavo.api import DeviceInfo, Probe
from octavo_torch.installed_torch import find_torch
from octavo_xpu.graphics_cards import graphics_cards
from octavo_xpu.level_zero import LIBRARY, LevelZeroReport, ask_level_zero, has_loader

__all__ = ["probe"]

_TORCH = "torch's XPU build (pytorch.org, Get Started, XPU gives the pip line)"
_DRIVER = "Intel's GPU driver with Level Zero (dgpu-docs.intel.com: libze1, libze-intel-gpu1)"
_UNINITIALIZED = 0x78000001  # ze_result_t: no driver of Level Zero's found a device
_MEANINGS = {
    0x70000001: "the device is lost: see dmesg, or reset it",
    0x70010000: "this user may not open it",
    _UNINITIALIZED: "no driver finds a GPU",
}


def probe(root: Path = Path("/")) -> Probe:
    """Every device, with the numbers that SYCL and torch give them."""
    cards = graphics_cards(root)
    if not cards and sys.platform.startswith("linux"):
        return Probe(
            reason="there is no Intel GPU (none in /sys/class/drm)",
            install="an Intel GPU and its kernel driver (xe or i915), or --device cpu",
        )
    closed = [card for card in cards if not card.may_be_opened]
    if cards and len(closed) == len(cards):
        return Probe(
            reason=f"/dev/dri/{closed[0].node.name} may not be opened by this user",
            install="sudo usermod -aG render $USER, and log in again; for a container, "
            "--device=/dev/dri",
        )
    if not has_loader():
        found = f"an Intel GPU ({cards[0].device_id:04x}), but no " if cards else "no "
        return Probe(reason=f"there is {found}Level Zero ({LIBRARY})", install=_DRIVER)
    report = ask_level_zero()
    if report.status or not report.gpus:
        return _no_gpu(report)
    return _torch_problem() or Probe(
        devices=tuple(
            DeviceInfo("xpu", index, gpu.name, gpu.total_bytes or None)
            for index, gpu in enumerate(report.gpus)
        )
    )


def _no_gpu(report: LevelZeroReport) -> Probe:
    mask = os.environ.get("ZE_AFFINITY_MASK")
    if report.status in {0, _UNINITIALIZED} and mask is not None:
        return Probe(
            reason=f"ZE_AFFINITY_MASK={mask!r} leaves no GPU", install="unset ZE_AFFINITY_MASK"
        )
    if report.status == 0:
        return Probe(reason="Level Zero finds no Intel GPU", install=_DRIVER)
    meaning = _MEANINGS.get(report.status, "see ze_result_t in the Level Zero specification")
    return Probe(
        reason=f"Level Zero refuses: {report.function} gives {report.status:#x} ({meaning})",
        install=_DRIVER,
    )


def _torch_problem() -> Probe | None:
    installed = find_torch()
    if installed is None:
        return Probe(reason="torch is not installed", install=_TORCH)
    if installed.xpu is None:
        return Probe(
            reason=f"torch {installed.version} is built {installed.built_for}, not for Intel GPUs",
            install=f"pip uninstall torch, then install {_TORCH}",
        )
    return None
