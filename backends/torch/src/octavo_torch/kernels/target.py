"""What a kernel is compiled for, as far as its launch options depend on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch

__all__ = ["Target", "target_of", "using_target"]


@dataclass(frozen=True)
class Target:
    """One kind of GPU."""

    vendor: Literal["cuda", "hip", "xpu", "interpreter"]
    arch: str
    """``sm90``, ``gfx942``, ``xe20.1``; ``cpu`` for the interpreter."""
    num_units: int = 1
    """Streaming multiprocessors, compute units, Xe cores."""
    shared_bytes: int = 48 << 10
    """Shared memory that one program may use."""
    warp_size: int = 32


_override: ContextVar[Target | None] = ContextVar("octavo_triton_target", default=None)


def target_of(device: torch.device) -> Target:
    """The target of a device's kernels, or the one that ``using_target`` has set."""
    return _override.get() or _detect(device.type, device.index or 0)


@contextlib.contextmanager
def using_target(target: Target) -> Iterator[None]:
    """Choose launch options for ``target``, whatever device the arguments are on."""
    token = _override.set(target)
    try:
        yield
    finally:
        _override.reset(token)


@lru_cache(maxsize=64)
def _detect(kind: str, index: int) -> Target:
    if kind == "cpu":
        return Target("interpreter", "cpu")
    properties = torch.get_device_module(kind).get_device_properties(index)
    if kind == "xpu":
        # A subslice is a Xe core: what shares local memory and runs work-groups.
        arch, shared_bytes = _xe_version(properties.architecture), properties.local_mem_size
        return Target("xpu", arch, properties.gpu_subslice_count, shared_bytes, 16)
    units = properties.multi_processor_count
    if kind == "cuda" and torch.version.hip is None:
        return Target(
            "cuda",
            f"sm{properties.major}{properties.minor}",
            units,
            properties.shared_memory_per_block_optin,
        )
    if kind == "cuda":
        arch = properties.gcnArchName.partition(":")[0]
        return Target("hip", arch, units, 64 << 10, properties.warp_size)
    raise ValueError(f"There are no launch options for devices of torch's kind {kind!r}.")


def _xe_version(architecture: int) -> str:
    """``xe12.60``, ``xe20.1``: of SYCL's number, whose bits 8 to 39 are the device's GMDID."""
    gmdid = architecture >> 8 & 0xFFFFFFFF
    return f"xe{gmdid >> 22}.{gmdid >> 14 & 0xFF}"
