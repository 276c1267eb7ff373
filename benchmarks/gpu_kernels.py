"""Every Triton kernel of the catalog against its reference in torch, compiled for this device."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from gpu_clock import Clock
from gpu_settings import Row, Settings

TABLE = "kernels"
COMPARISON = Path(__file__).resolve().parent.parent / "tests" / "triton_kernels"
REHEARSED_CASES = 1


def run(settings: Settings) -> Iterator[Row]:
    """In a rehearsal each reference takes its kernel's place: there is nothing to compile for."""
    if find_spec("triton") is None:
        wrong = not settings.rehearse
        yield {"table": TABLE, "kernel": "none", "why": "no triton here", "is_wrong": wrong}
        return
    from octavo_torch.kernels.catalog import all_kernels

    sys.path.append(str(COMPARISON))
    Clock(settings.torch_device)  # makes it the current device
    # What a kernel leaves unwritten is then NaN, as its reference says; a warning is no error.
    torch.use_deterministic_algorithms(True, warn_only=True)  # noqa: FBT003 - torch's signature
    for known in all_kernels().values():
        kernel = replace(known, launch=known.reference) if settings.rehearse else known
        start = time.perf_counter()
        cases = [case for case in kernel.cases if not case.ahead]
        if settings.rehearse or settings.quick:
            cases = cases[:REHEARSED_CASES] if settings.rehearse else cases[:4]
        wrong = [text for case in cases if (text := _what_differs(kernel, case, settings))]
        yield {
            "table": TABLE,
            "kernel": kernel.name,
            "cases": len(cases),
            "wrong": len(wrong),
            "first": wrong[0] if wrong else "",
            "seconds": time.perf_counter() - start,
            "is_wrong": bool(wrong),
        }


def _what_differs(kernel: Any, case: Any, settings: Settings) -> str:
    """Empty if the kernel gives what its reference gives; any error of one case is its result."""
    from kernel_comparison import difference

    try:
        problem = difference(kernel, case, torch.device(settings.torch_device))
    except Exception as error:  # noqa: BLE001 - the other kernels are to be tried, too
        problem = f"{type(error).__name__}: {str(error).splitlines()[:1]}"
    return f"{case.label}: {problem}" if problem else ""
