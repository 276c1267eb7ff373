"""How long a GPU computed while something ran: the union of its kernels' and copies' intervals."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec


def union_length(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of what the intervals cover, those that overlap counted once."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered


def recorded(call: Callable[[], object]) -> float | None:
    """Seconds that the device was busy during the call; None where no record can be had."""
    if find_spec("torch") is None:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    try:
        with profile(activities=[ProfilerActivity.CUDA]) as record:
            call()
            torch.cuda.synchronize()
        events = [event for event in record.events() if event.device_type == DeviceType.CUDA]
    except RuntimeError as error:  # a machine without the profiler's library, or its permission
        print(f"no record of the device: {error}", file=sys.stderr)
        return None
    ranges = [event.time_range for event in events]
    return union_length((each.start, each.end) for each in ranges) / 1e6 or None
