"""Makes a step take as long as the options say."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from octavo_cpu.fake.options import FakeOptions

__all__ = ["with_latency"]


def with_latency(step: Callable[..., Any], options: FakeOptions) -> Callable[..., Any]:
    """The step, and a sleep for what is left of its time; sampling by itself takes none."""
    if not (options.latency_s or options.token_latency_s):
        return step

    @functools.wraps(step)
    def slow(weights: Any, caches: Any, batch: Any, *rest: Any) -> Any:
        if not hasattr(batch, "token_ids"):  # logits: the forward pass has taken the time
            return step(weights, caches, batch, *rest)
        num_tokens = batch.token_ids.shape[0]
        ends_s = time.monotonic() + options.latency_s + num_tokens * options.token_latency_s
        results = step(weights, caches, batch, *rest)
        time.sleep(max(0.0, ends_s - time.monotonic()))
        return results

    return slow
