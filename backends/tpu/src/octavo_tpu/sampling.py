"""Sampling in one program: the device finds out which of its ways a step needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from octavo.api import SampleResult, SamplingBatch

__all__ = ["sample_as_needed"]


def sample_as_needed(
    sample: Callable[[Any, SamplingBatch], SampleResult], logits: jax.Array, sampling: Any
) -> SampleResult:
    """``sample``, without a draw where all rows are greedy, and without order where none needs it.

    ``sampling.all_greedy`` and ``sampling.truncated`` are what a program is compiled for, so they
    may be False and True where the rows are not so.
    """
    if sampling.all_greedy:
        return sample(logits, sampling)
    is_drawn = sampling.temperature > 0
    is_narrowed = is_drawn & ((sampling.top_k > 0) | (sampling.top_p < 1))
    way = jnp.any(is_drawn).astype(jnp.int32)
    ways = [
        dataclasses.replace(sampling, all_greedy=True, truncated=False),
        dataclasses.replace(sampling, all_greedy=False, truncated=False),
    ]
    if sampling.truncated:
        way += jnp.any(is_narrowed).astype(jnp.int32)
        ways.append(dataclasses.replace(sampling, all_greedy=False, truncated=True))
    branches = [lambda x, each=each: sample(x, each) for each in ways]
    result: SampleResult = jax.lax.switch(way, branches, logits)
    return result
