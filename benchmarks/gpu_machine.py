"""The device: what it is, what it copies and multiplies in a second."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from gpu_clock import Clock
from gpu_report import REHEARSED
from gpu_settings import Row, Settings

TABLE = "the device"
COPY_BYTES = 4 << 30
MATMUL_SIZE = 8192
PACKAGES = ("torch", "triton", "transformers", "flashinfer-python", "flash-attn", "numpy")


def run(settings: Settings) -> Iterator[Row]:
    """Facts first; then the two rates that everything else is held against."""
    memory = {} if settings.rehearse else {"rate": _facts(settings).total_memory}
    yield {"table": TABLE, "name": "name", "value": _name(settings)} | memory
    yield {"table": TABLE, "name": "versions", "value": _versions()}
    clock = Clock(settings.torch_device)
    yield _copy(settings, clock)
    yield _matmul(settings, clock)


def _name(settings: Settings) -> str:
    if not settings.torch_device.startswith("cuda"):
        return f"{platform.machine()}, {REHEARSED}"
    facts = _facts(settings)
    arch = (
        getattr(facts, "gcnArchName", None)
        if torch.version.hip
        else f"sm{facts.major}{facts.minor}"
    )
    memory = facts.total_memory / (1 << 30)
    return f"{facts.name}, {arch}, {facts.multi_processor_count} processors, {memory:.0f} GiB"


def _facts(settings: Settings) -> Any:
    return torch.cuda.get_device_properties(torch.device(settings.torch_device))


def _versions() -> str:
    found = [f"Python {platform.python_version()}", f"driver {_driver()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)


def _driver() -> str:
    """As the kernel tells it; no tool has to be there."""
    for place in ("/sys/module/nvidia/version", "/sys/module/amdgpu/version"):
        try:
            return Path(place).read_text().strip()
        except OSError:
            continue
    return "unknown"


def _copy(settings: Settings, clock: Clock) -> Row:
    num_bytes = 1 << 20 if settings.rehearse else COPY_BYTES
    source = torch.randint(0, 255, (num_bytes,), dtype=torch.uint8, device=settings.torch_device)
    target = torch.empty_like(source)
    taken = clock.alternating({"copy": lambda: target.copy_(source)}, 1)["copy"][0]
    rate = 2 * num_bytes / taken
    value = f"{rate / 1e12:.2f} TB/s, read plus written"
    return {"table": TABLE, "name": "copy", "value": value, "rate": rate}


def _matmul(settings: Settings, clock: Clock) -> Row:
    size = 64 if settings.rehearse else MATMUL_SIZE
    left, right = (
        torch.randn(size, size, device=settings.torch_device, dtype=torch.bfloat16)
        for _ in range(2)
    )
    taken = clock.alternating({"matmul": lambda: left @ right}, 2)["matmul"]
    rate = 2 * size**3 / min(taken)
    value = f"{rate / 1e12:.0f} TFLOP/s, {size:,} cubed, random numbers"
    return {"table": TABLE, "name": "bf16 matmul", "value": value, "rate": rate}
