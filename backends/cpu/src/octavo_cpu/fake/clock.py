"""Makes a step take as long as the options say: in the caller's time, or in the device's."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from octavo_cpu.fake.options import FakeOptions

__all__ = ["DeviceClock", "with_latency"]


class DeviceClock:
    """When the device will have done what is queued, in seconds of ``time.monotonic``."""

    def __init__(self) -> None:
        self.free_s = 0.0

    def queue(self, seconds: float) -> None:
        """Add work behind what is queued."""
        self.free_s = max(self.free_s, time.monotonic()) + seconds

    def waiter(self) -> Callable[[], None]:
        """A function that waits for all that is queued now."""
        free_s = self.free_s
        return lambda: time.sleep(max(0.0, free_s - time.monotonic()))


def with_latency(
    step: Callable[..., Any], options: FakeOptions, clock: DeviceClock
) -> Callable[..., Any]:
    """The step, and its time; sampling by itself takes none.

    A step that computes takes the longer of the two, its own time and that of the options.
    """
    if not (options.latency_s or options.token_latency_s):
        return step

    @functools.wraps(step)
    def slow(weights: Any, caches: Any, batch: Any, *rest: Any) -> Any:
        if not hasattr(batch, "token_ids"):  # logits: the forward pass has taken the time
            return step(weights, caches, batch, *rest)
        began_s = time.monotonic()
        seconds = options.latency_s + batch.token_ids.shape[0] * options.token_latency_s
        results = step(weights, caches, batch, *rest)
        if options.asynchronous:
            clock.queue(seconds)
        else:
            time.sleep(max(0.0, began_s + seconds - time.monotonic()))
        return results

    return slow
