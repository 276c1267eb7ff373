"""Seconds of work on a device, by its own clock where it has one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch


class Clock:
    """Times calls on one device. Buffers larger than its caches are the caller's affair."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        if self._has_events:
            torch.cuda.set_device(self._device.index or 0)

    @property
    def _has_events(self) -> bool:
        return self._device.type == "cuda"

    def synchronize(self) -> None:
        if self._has_events:
            torch.cuda.synchronize(self._device)

    def seconds(self, call: Callable[[], object], calls: int = 10) -> float:
        """Median over ``calls`` single calls, each between two events."""
        if not self._has_events:
            return median(self._host_seconds(call) for _ in range(calls))
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
        for start, end in pairs:
            start.record()
            call()
            end.record()
        self.synchronize()
        return median(start.elapsed_time(end) for start, end in pairs) / 1e3

    def _host_seconds(self, call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    def alternating(
        self, calls: Mapping[str, Callable[[], object]], rounds: int
    ) -> dict[str, list[float]]:
        """Seconds of each, in turns: one that throttles the device throttles all alike."""
        for call in calls.values():
            for _ in range(3):
                call()
        self.synchronize()
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                taken[name].append(self.seconds(call))
        return taken
