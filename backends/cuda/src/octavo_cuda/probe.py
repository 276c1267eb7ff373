"""Which NVIDIA GPUs can be used, or why none can, and what helps."""

from __future__ import annotations

import os

from octavo.api import DeviceInfo, Probe
from octavo_cuda.driver import LIBRARY, DriverReport, GpuFacts, ask_driver, has_driver
from octavo_torch.installed_torch import InstalledTorch, find_torch

__all__ = ["MIN_CAPABILITY", "probe"]

MIN_CAPABILITY = (7, 5)
"""Below, neither torch's builds for today's CUDA nor Triton have code."""

_NO_DEVICE = 100
_MEANINGS = {  # CUresult in cuda.h, of those that cuInit gives
    2: "out of memory",
    3: "not initialised",
    34: "the library is a stub, not a driver",
    46: "the device is busy or unavailable",
    _NO_DEVICE: "there is no device",
    101: "a device that was asked for does not exist",
    802: "the system is not ready: the fabric manager may not be running",
    803: "the library and the kernel module are of different versions: restart, or reinstall the "
    "driver",
    804: "forward compatibility was asked for on hardware that does not have it",
    999: "unknown: the kernel module may be missing, or the device is lost (see dmesg)",
}


def probe() -> Probe:
    """Every device, in the driver's order, with the driver's numbers."""
    if not has_driver():
        return Probe(
            reason=f"there is no NVIDIA driver ({LIBRARY} is not found)",
            install="the driver from nvidia.com or your distribution; for a container, the NVIDIA "
            "Container Toolkit and --gpus all",
        )
    report = ask_driver()
    if report.status or not report.gpus:
        return _no_gpu(report)
    installed = find_torch()
    problem = _torch_problem(installed, report)
    if problem is not None:
        return problem
    devices = tuple(
        DeviceInfo("cuda", index, gpu.name, gpu.total_bytes)
        for index, gpu in enumerate(report.gpus)
        if gpu.capability >= MIN_CAPABILITY
    )
    return Probe(devices=devices) if devices else _too_old(report.gpus)


def _no_gpu(report: DriverReport) -> Probe:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if report.status in {0, _NO_DEVICE} and visible is not None:
        return Probe(
            reason=f"CUDA_VISIBLE_DEVICES={visible!r} leaves no GPU",
            install="unset CUDA_VISIBLE_DEVICES, or name GPUs that `nvidia-smi -L` lists",
        )
    if report.status in {0, _NO_DEVICE}:
        return Probe(
            reason="the NVIDIA driver finds no GPU",
            install="look at `nvidia-smi`; in a container, start it with --gpus all",
        )
    meaning = _MEANINGS.get(report.status, "see CUresult in the CUDA driver API")
    return Probe(
        reason=f"the NVIDIA driver refuses: {report.function} gives {report.status} ({meaning})",
        install="look at `nvidia-smi`, which talks to the same driver",
    )


def _torch_problem(installed: InstalledTorch | None, report: DriverReport) -> Probe | None:
    if installed is None:
        return Probe(reason="torch is not installed", install="pip install octavo-cuda")
    if installed.cuda is None:
        return Probe(
            reason=f"torch {installed.version} is built {installed.built_for}, not for CUDA",
            install="pip uninstall torch, then install its CUDA build (pytorch.org says how)",
        )
    if installed.cuda[0] > report.version[0]:
        needed, served = (".".join(map(str, each)) for each in (installed.cuda, report.version))
        return Probe(
            reason=f"the NVIDIA driver serves CUDA up to {served}, and torch {installed.version} "
            f"is built for CUDA {needed}",
            install=f"a newer driver, or a build of torch for CUDA {report.version[0]}",
        )
    return None


def _too_old(gpus: tuple[GpuFacts, ...]) -> Probe:
    names = ", ".join(f"{gpu.name} ({gpu.capability[0]}.{gpu.capability[1]})" for gpu in gpus)
    least = ".".join(map(str, MIN_CAPABILITY))
    return Probe(
        reason=f"compute capability {least} is the least that is served, and there is {names}",
        install="a GPU of the Turing generation or newer, or --device cpu",
    )
