"""The portable sampler, over an array namespace; what it computes stands in ``sampling``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from octavo.ops.arrays import Array, Namespace, set_at
from octavo.ops.protocol import SampleResult, SamplingBatch
from octavo.ops.sampling_weights import (
    MAX_VOCAB_SIZE,
    cumulative,
    fraction_of,
    less,
    steps_per_logit,
    to_units,
    weights,
)

if TYPE_CHECKING:
    from jaxtyping import Float, Int

__all__ = ["adjusted_logits", "check_vocab_size", "sample", "token_logprobs"]

Batch: TypeAlias = Any
"""A SamplingBatch; its fields are arrays of the namespace at hand, with all that they can do."""

_PENALTY_GRID = float(2**20)


def sample(
    xp: Namespace, logits: Float[Array, "rows vocab"], sampling: SamplingBatch
) -> SampleResult:
    """See ``octavo.ops.sampling``."""
    check_vocab_size(logits.shape[-1])
    batch: Batch = sampling
    logits = xp.astype(logits, xp.float32)
    if logits.shape[0] == 0:
        return _no_rows(xp, logits, sampling.num_logprobs)
    with np.errstate(over="ignore", invalid="ignore"):  # of NumPy alone; such rows are not valid
        adjusted = logits if sampling.plain else adjusted_logits(xp, logits, sampling)
        greedy_ids = xp.argmax(adjusted, axis=-1)
        valid = xp.isfinite(_pick(xp, adjusted, greedy_ids))
        token_ids = xp.astype(greedy_ids, xp.int32)
        if not sampling.all_greedy:
            usable = xp.where(valid[:, None], adjusted, xp.zeros_like(adjusted))
            drawn = _draw(xp, usable, batch)
            token_ids = xp.where(batch.temperature > 0, drawn, token_ids)
        token_ids = xp.where(valid, token_ids, xp.zeros_like(token_ids))
        return _result(xp, logits, token_ids, sampling.num_logprobs, valid)


def token_logprobs(
    xp: Namespace,
    logits: Float[Array, "rows vocab"],
    token_ids: Int[Array, "rows"],
    num_logprobs: int,
) -> SampleResult:
    """See ``octavo.ops.sampling``."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _result(xp, xp.astype(logits, xp.float32), token_ids, num_logprobs, None)


def check_vocab_size(vocab_size: int) -> None:
    """Refuse a vocabulary over which weights cannot be summed exactly."""
    if vocab_size > MAX_VOCAB_SIZE:
        raise ValueError(
            f"{vocab_size=}, but sampling sums exactly over at most {MAX_VOCAB_SIZE} tokens; "
            "widen the sums in octavo.ops.sampling_weights for a larger vocabulary."
        )


def adjusted_logits(
    xp: Namespace, logits: Float[Array, "rows vocab"], sampling: Batch
) -> Float[Array, "rows vocab"]:
    """float32 logits after mask, bias and penalties; the argument is left as it is."""
    adjusted = logits
    if sampling.mask is not None:
        adjusted = xp.where(sampling.mask, logits, -float("inf"))
    if sampling.bias_ids.shape[0]:
        place = (sampling.bias_rows, sampling.bias_ids)
        biased = adjusted[place] + sampling.bias_values
        adjusted = set_at(xp, adjusted, place, biased, copy=adjusted is logits)
    if sampling.seen_ids.shape[0]:
        place = (sampling.seen_rows, sampling.seen_ids)
        penalised = _penalised(xp, adjusted[place], sampling)
        adjusted = set_at(xp, adjusted, place, penalised, copy=adjusted is logits)
    return adjusted


def _penalised(
    xp: Namespace, values: Float[Array, "seen"], sampling: Batch
) -> Float[Array, "seen"]:
    rows = sampling.seen_rows
    counts = xp.astype(sampling.seen_counts, xp.float32)
    repetition = xp.take(sampling.repetition_penalty, rows, axis=0)
    presence = xp.take(sampling.presence_penalty, rows, axis=0)
    frequency = xp.take(sampling.frequency_penalty, rows, axis=0)
    values = xp.where(values > 0, values / repetition, values * repetition)
    # Rounded, so that a fused multiply-add (which skips the product's rounding) cannot differ.
    by_count = xp.round(frequency * counts * _PENALTY_GRID) * (1 / _PENALTY_GRID)
    return values - by_count - xp.where(counts > 0, presence, xp.zeros_like(presence))


def _draw(xp: Namespace, logits: Float[Array, "rows vocab"], sampling: Batch) -> Int[Array, "rows"]:
    temperature = xp.where(
        sampling.temperature > 0, sampling.temperature, xp.ones_like(sampling.temperature)
    )
    per_logit = steps_per_logit(xp, temperature)[:, None]
    largest = xp.max(logits, axis=-1, keepdims=True)
    token_weights = weights(xp, logits, largest, per_logit)
    smallest = to_units(xp, sampling.min_p)[:, None]
    kept = token_weights >= smallest
    if sampling.truncated:
        ordered = xp.sort(logits, axis=-1, descending=True)
        ordered_weights = weights(xp, ordered, largest, per_logit)
        ordered_weights = xp.where(ordered_weights >= smallest, ordered_weights, 0)
        kth_logit, lightest = _thresholds(xp, ordered, ordered_weights, sampling)
        kept = kept & (logits >= kth_logit) & (token_weights >= lightest)
    running = cumulative(xp, xp.where(kept, token_weights, xp.zeros_like(token_weights)))
    target = fraction_of(_last(running), to_units(xp, sampling.uniform)[:, None])
    return xp.sum(xp.astype(~less(target, running), xp.int32), axis=-1, dtype=xp.int32)


def _thresholds(
    xp: Namespace,
    ordered: Float[Array, "rows vocab"],
    ordered_weights: Int[Array, "rows vocab"],
    sampling: Batch,
) -> tuple[Float[Array, "rows 1"], Int[Array, "rows 1"]]:
    """The smallest logit that top_k keeps and the smallest weight that top_p keeps."""
    vocab_size = ordered.shape[-1]
    limited = (sampling.top_k > 0) & (sampling.top_k < vocab_size)
    top_k = xp.where(limited, sampling.top_k, xp.full_like(sampling.top_k, vocab_size))
    kth_logit = _pick(xp, ordered, top_k - 1)[:, None]
    ordered_weights = xp.where(ordered >= kth_logit, ordered_weights, 0)
    running = cumulative(xp, ordered_weights)
    needed = fraction_of(_last(running), to_units(xp, sampling.top_p)[:, None])
    num_before = xp.sum(xp.astype(less(running, needed), xp.int32), axis=-1, dtype=xp.int32)
    return kth_logit, _pick(xp, ordered_weights, num_before)[:, None]


def _result(
    xp: Namespace,
    logits: Float[Array, "rows vocab"],
    token_ids: Int[Array, "rows"],
    num_logprobs: int,
    valid: Array | None,
) -> SampleResult:
    if num_logprobs < 0:
        return SampleResult(token_ids, None, None, None, None, valid)
    largest = xp.max(logits, axis=-1, keepdims=True)
    normaliser = largest + xp.log(xp.sum(xp.exp(logits - largest), axis=-1, keepdims=True))
    chosen = _pick(xp, logits, token_ids)[:, None]
    ranks = 1 + xp.sum(xp.astype(logits > chosen, xp.int32), axis=-1, dtype=xp.int32)
    top_ids = xp.argsort(-logits, axis=-1, stable=True)[:, :num_logprobs]
    top_logprobs = xp.take_along_axis(logits, top_ids, axis=-1) - normaliser
    logprobs = (chosen - normaliser)[:, 0]
    return SampleResult(
        token_ids, logprobs, ranks, xp.astype(top_ids, xp.int32), top_logprobs, valid
    )


def _no_rows(xp: Namespace, logits: Float[Array, "rows vocab"], num_logprobs: int) -> SampleResult:
    """The result of a step that samples nothing: not every library can reduce an empty array."""
    numbers = logits[:, 0]
    ids, valid = xp.astype(numbers, xp.int32), xp.isfinite(numbers)
    if num_logprobs < 0:
        return SampleResult(ids, None, None, None, None, valid)
    top = logits[:, :num_logprobs]
    return SampleResult(ids, numbers, ids, xp.astype(top, xp.int32), top, valid)


def _pick(xp: Namespace, table: Array, columns: Int[Array, "rows"]) -> Array:
    """``table[i, columns[i]]`` for each row i."""
    index_dtype = xp.argmax(table[:1, :1], axis=-1).dtype  # torch gathers by int64 only
    index = xp.astype(columns, index_dtype)[:, None]
    return xp.take_along_axis(table, index, axis=-1)[:, 0]


def _last(running: tuple[Array, Array]) -> tuple[Array, Array]:
    """The total of running sums."""
    return running[0][:, -1:], running[1][:, -1:]
