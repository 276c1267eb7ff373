"""Sampling in one program and without a sort: the device finds out what a step needs of it.

The same integers as ``octavo.ops.sampling`` compute, and so the same tokens. What top_k and top_p
leave is found bit by bit: the largest bound that still leaves enough, of all that are possible.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp

from octavo.api import SampleResult, adjusted_logits, sampling_weights

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

__all__ = ["sample", "with_logprobs"]

Sampling: TypeAlias = Any
"""A SamplingBatch of jax.Arrays."""

_BLOCK = 128
_KEY_BITS = 32
_WEIGHT_BITS = 25


def sample(
    logits: Float[jax.Array, "rows vocab"], sampling: Sampling, *, branches: bool = True
) -> SampleResult:
    """See ``octavo.ops.sampling``; there is a row at least.

    ``all_greedy`` and ``truncated``, which a program is compiled for, may be False and True where
    the rows are not so. Without ``branches`` all is computed that some row may need.
    """
    logits = logits.astype(jnp.float32)
    adjusted = logits if sampling.plain else adjusted_logits(jnp, logits, sampling)
    token_ids, largest = _first_largest(adjusted)
    valid = jnp.isfinite(largest)
    if not sampling.all_greedy:
        usable = jnp.where(valid[:, None], adjusted, 0.0)
        if branches:
            drawn = _drawn_as_needed(usable, token_ids, sampling)
        else:
            drawn = _drawn(sampling, usable, is_narrowed=sampling.truncated)
        token_ids = jnp.where(sampling.temperature > 0, drawn, token_ids)
    token_ids = jnp.where(valid, token_ids, 0)
    return with_logprobs(logits, token_ids, sampling.num_logprobs, valid)


def with_logprobs(
    logits: Float[jax.Array, "rows vocab"],
    token_ids: Int[jax.Array, "rows"],
    num_logprobs: int,
    valid: Bool[jax.Array, "rows"] | None,
) -> SampleResult:
    """Log-probabilities of the raw logits for tokens that are chosen; none if less than 0."""
    if num_logprobs < 0:
        return SampleResult(token_ids, None, None, None, None, valid)
    chosen = _pick(logits, token_ids)
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    ranks = 1 + jnp.sum(logits > chosen[:, None], axis=-1, dtype=jnp.int32)
    top, top_ids = jax.lax.top_k(logits, min(num_logprobs, logits.shape[-1]))
    return SampleResult(
        token_ids, chosen - normaliser, ranks, top_ids, top - normaliser[:, None], valid
    )


def _pick(table: jax.Array, columns: Int[jax.Array, "rows"]) -> jax.Array:
    return jnp.take_along_axis(table, columns[:, None], axis=-1)[:, 0]


def _first_largest(
    logits: Float[jax.Array, "rows vocab"],
) -> tuple[Int[jax.Array, "rows"], Float[jax.Array, "rows"]]:
    """Its id, and the logit; NaN and an id of nothing where there is one NaN.

    Two reductions of one number each are quick on a CPU, an argmax takes five times as long.
    """
    largest = jnp.max(logits, axis=-1)
    vocab_size = logits.shape[-1]
    ids = jnp.arange(vocab_size, dtype=jnp.int32)
    found = jnp.where(logits == largest[:, None], ids, vocab_size)
    return jnp.min(found, axis=-1), largest


def _drawn_as_needed(
    logits: Float[jax.Array, "rows vocab"], greedy_ids: Int[jax.Array, "rows"], sampling: Sampling
) -> Int[jax.Array, "rows"]:
    """Drawn tokens, if a row draws at all; in the longer way only if one narrows its choice."""
    is_drawn = sampling.temperature > 0
    is_narrowed = is_drawn & ((sampling.top_k > 0) | (sampling.top_p < 1))
    ways: list[Callable[[jax.Array], jax.Array]] = [
        lambda _logits: greedy_ids,
        functools.partial(_drawn, sampling, is_narrowed=False),
    ]
    way = jnp.any(is_drawn).astype(jnp.int32)
    if sampling.truncated:
        way += jnp.any(is_narrowed).astype(jnp.int32)
        ways.append(functools.partial(_drawn, sampling, is_narrowed=True))
    drawn: jax.Array = jax.lax.switch(way, ways, logits)
    return drawn


def _drawn(
    sampling: Sampling, logits: Float[jax.Array, "rows vocab"], *, is_narrowed: bool
) -> Int[jax.Array, "rows"]:
    temperature = jnp.where(sampling.temperature > 0, sampling.temperature, 1.0)
    per_logit = sampling_weights.steps_per_logit(jnp, temperature)[:, None]
    largest = jnp.max(logits, axis=-1, keepdims=True)
    weights = sampling_weights.weights(jnp, logits, largest, per_logit)
    smallest = sampling_weights.to_units(jnp, sampling.min_p)[:, None]
    weights = jnp.where(weights >= smallest, weights, 0)
    if is_narrowed:
        keys = _ordered_bits(logits)
        weights = jnp.where(keys >= _kth_key(keys, sampling.top_k)[:, None], weights, 0)
        lightest = _lightest(weights, sampling.top_p)[:, None]
        weights = jnp.where(weights >= lightest, weights, 0)
    return _token_at(weights, sampling.uniform)


def _ordered_bits(logits: Float[jax.Array, "rows vocab"]) -> jax.Array:
    """uint32 in the order of the floats, the zeros alike."""
    bits = jax.lax.bitcast_convert_type(jnp.where(logits == 0, 0.0, logits), jnp.uint32)
    sign = jnp.uint32(1 << 31)
    return jnp.where(bits >= sign, ~bits, bits | sign)


def _kth_key(keys: jax.Array, top_k: Int[jax.Array, "rows"]) -> jax.Array:
    """The largest key that as many as top_k reach."""
    vocab_size = keys.shape[-1]
    needed = jnp.where((top_k > 0) & (top_k < vocab_size), top_k, vocab_size)
    return _largest_bound(
        _KEY_BITS, len(keys), lambda bound: jnp.sum(keys >= bound, -1, dtype=jnp.int32) >= needed
    )


def _lightest(weights: Int[jax.Array, "rows vocab"], top_p: Float[jax.Array, "rows"]) -> jax.Array:
    """The largest weight from which on all together make top_p of the sum."""
    units = sampling_weights.to_units(jnp, top_p)
    needed = sampling_weights.fraction_of(_sum(weights), units)

    def is_enough(bound: jax.Array) -> jax.Array:
        heavy = jnp.where(weights >= bound.astype(jnp.int32), weights, 0)
        return jnp.logical_not(sampling_weights.less(_sum(heavy), needed))

    bound = _largest_bound(_WEIGHT_BITS, len(weights), is_enough).astype(jnp.int32)
    return jnp.minimum(bound, jnp.max(weights, axis=-1))  # for a top_p of next to nothing


def _largest_bound(
    num_bits: int, num_rows: int, is_enough: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """uint32[rows]: the largest of so many bits that ``is_enough(bounds[:, None])`` holds for."""

    def try_bit(index: Any, bound: jax.Array) -> jax.Array:
        bit = jnp.uint32(1) << jnp.uint32(num_bits - 1 - index)
        return jnp.where(is_enough((bound | bit)[:, None]), bound | bit, bound)

    found: jax.Array = jax.lax.fori_loop(0, num_bits, try_bit, jnp.zeros(num_rows, jnp.uint32))
    return found


def _sum(weights: Int[jax.Array, "rows vocab"]) -> sampling_weights.Wide:
    high, low = sampling_weights.limbs(weights)
    return sampling_weights.carried(jnp.sum(high, axis=-1), jnp.sum(low, axis=-1))


def _token_at(
    weights: Int[jax.Array, "rows vocab"], uniform: Float[jax.Array, "rows"]
) -> Int[jax.Array, "rows"]:
    """The token at that part of all weights: first its block, then its place in there."""
    rows, vocab_size = weights.shape
    blocks = jnp.pad(weights, ((0, 0), (0, -vocab_size % _BLOCK))).reshape(rows, -1, _BLOCK)
    limbs = [jnp.cumsum(jnp.sum(part, -1), -1) for part in sampling_weights.limbs(blocks)]
    running = sampling_weights.carried(*limbs)
    total = (running[0][:, -1:], running[1][:, -1:])
    units = sampling_weights.to_units(jnp, uniform)[:, None]
    target = sampling_weights.fraction_of(total, units)
    block = jnp.sum(~sampling_weights.less(target, running), axis=-1, dtype=jnp.int32)
    own = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    before = [jnp.where(block > 0, _pick(part, block - 1), 0)[:, None] for part in limbs]
    inside = [jnp.cumsum(part, -1) for part in sampling_weights.limbs(own)]
    running = sampling_weights.carried(*(a + b for a, b in zip(before, inside, strict=True)))
    place: jax.Array = jnp.sum(~sampling_weights.less(target, running), axis=-1, dtype=jnp.int32)
    return block * _BLOCK + place
