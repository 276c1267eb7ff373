"""The sampler for NumPy, which finds the thresholds of ``sampling`` without sorting rows.

It takes one row at a time, so that a row stays in the processor's cache. Tests hold it equal to
``sampling_portable`` token for token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import array_api_compat.numpy as xp
import numpy as np
from numpy.typing import NDArray

from octavo.ops.arrays import Array
from octavo.ops.protocol import SampleResult, SamplingBatch
from octavo.ops.sampling_portable import adjusted_logits, check_vocab_size
from octavo.ops.sampling_weights import (
    LIMIT_STEPS,
    UNIT,
    UNIT_BITS,
    steps_per_logit,
    to_units,
    weights_of_steps,
)

if TYPE_CHECKING:
    from jaxtyping import Float, Int

__all__ = ["sample", "token_logprobs"]

Row = NDArray[np.float32]  # one row's logits
Ids = NDArray[np.intp]  # some of its token ids, ascending
Weights = NDArray[np.int32]

_CHUNK = 128  # tokens whose maximum stands for them in the search for the k largest
_FEW = 0.25  # compressing a row pays off below this share of its tokens


def sample(logits: Float[Array, "rows vocab"], sampling: SamplingBatch) -> SampleResult:
    """See ``octavo.ops.sampling``."""
    logits = np.asarray(logits, np.float32)
    check_vocab_size(logits.shape[-1])
    with np.errstate(over="ignore", invalid="ignore"):  # such rows are not valid
        adjusted = logits if sampling.plain else adjusted_logits(xp, logits, sampling)
        token_ids = adjusted.argmax(axis=-1).astype(np.int32)
        valid = np.isfinite(adjusted[np.arange(len(token_ids)), token_ids])
        if not sampling.all_greedy:
            drawn = np.flatnonzero(valid & (np.asarray(sampling.temperature) > 0))
            token_ids[drawn] = _draw_rows(adjusted, drawn, sampling)
        token_ids[~valid] = 0
        return _result(logits, token_ids, sampling.num_logprobs, valid)


def token_logprobs(
    logits: Float[Array, "rows vocab"], token_ids: Int[Array, "rows"], num_logprobs: int
) -> SampleResult:
    """See ``octavo.ops.sampling``."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _result(np.asarray(logits, np.float32), np.asarray(token_ids), num_logprobs, None)


def _draw_rows(logits: Array, rows: Ids, sampling: SamplingBatch) -> list[int]:
    per_logit = steps_per_logit(xp, sampling.temperature[rows])
    smallest = to_units(xp, sampling.min_p[rows]).tolist()
    top_p = to_units(xp, sampling.top_p[rows]).tolist()
    uniform = to_units(xp, sampling.uniform[rows]).tolist()
    top_k = sampling.top_k[rows].tolist()
    return [
        _draw(logits[row], *settings)
        for row, *settings in zip(rows, per_logit, top_k, smallest, top_p, uniform, strict=True)
    ]


def _draw(
    logits: Row, per_logit: np.float32, top_k: int, smallest: int, top_p: int, uniform: int
) -> int:
    """A token id. ``smallest`` weight, ``top_p`` and ``uniform`` are in parts of 2**24."""
    largest = logits.max()
    ids: Ids | None
    if 0 < top_k < len(logits):
        ids = _ids_of_largest(logits, top_k)
    else:
        ids = _ids_with_weight(logits, largest, per_logit)
    weights = _weights(logits if ids is None else logits[ids], largest, per_logit)
    if smallest > 0:
        weights *= weights >= smallest
    if top_p < UNIT:
        weights *= weights >= _lightest_kept(weights, top_p)
    running = np.cumsum(weights, dtype=np.int64)
    target = (int(running[-1]) * uniform) >> UNIT_BITS
    place = int(np.searchsorted(running, target, side="right"))
    return place if ids is None else int(ids[place])


def _weights(logits: Row, largest: np.float32, per_logit: np.float32) -> Weights:
    steps = np.subtract(largest, logits)
    steps *= per_logit
    np.minimum(steps, np.float32(LIMIT_STEPS), out=steps)
    np.rint(steps, out=steps)
    weights: Weights = weights_of_steps(steps.astype(np.int32))
    return weights


def _ids_with_weight(logits: Row, largest: np.float32, per_logit: np.float32) -> Ids | None:
    """The tokens that may have a weight above 0; None if they are too many to be worth it."""
    reach = np.float32(1.01 * LIMIT_STEPS) / per_logit
    near = logits >= largest - reach
    return np.flatnonzero(near) if np.count_nonzero(near) < _FEW * len(logits) else None


def _ids_of_largest(logits: Row, count: int) -> Ids:
    """Ids of all logits that are at least the ``count``-th largest."""
    # As many chunks have a maximum of at least ``bound``, and so have as many logits.
    maxima = np.maximum.reduceat(logits, np.arange(0, len(logits), _CHUNK))
    bound = _nth_largest(maxima, count) if count <= len(maxima) else -np.inf
    ids = np.flatnonzero(logits >= bound)
    candidates = logits[ids]
    kept: Ids = ids[candidates >= _nth_largest(candidates, count)]
    return kept


def _nth_largest(values: NDArray[Any], count: int) -> Any:
    place = len(values) - count
    return np.partition(values, place)[place]


def _lightest_kept(weights: Weights, top_p: int) -> int:
    """The smallest weight that top_p keeps."""
    needed = (int(weights.sum(dtype=np.int64)) * top_p) >> UNIT_BITS
    for halvings in (4, 8, 12, UNIT_BITS):  # mostly a few heavy tokens are enough: sort only those
        heavy = weights[weights >= UNIT >> halvings]
        if heavy.sum(dtype=np.int64) >= needed:
            break
    heavy = np.sort(heavy)[::-1]
    place = np.searchsorted(np.cumsum(heavy, dtype=np.int64), needed, side="left")
    return int(heavy[place])


def _result(
    logits: Float[Array, "rows vocab"],
    token_ids: Int[Array, "rows"],
    num_logprobs: int,
    valid: Array | None,
) -> SampleResult:
    if num_logprobs < 0:
        return SampleResult(token_ids, None, None, None, None, valid)
    num_rows, vocab_size = logits.shape
    num_top = min(num_logprobs, vocab_size)
    logprobs: Array = np.empty(num_rows, np.float32)
    ranks: Array = np.empty(num_rows, np.int32)
    top_ids: Array = np.empty((num_rows, num_top), np.int32)
    top_logprobs: Array = np.empty((num_rows, num_top), np.float32)
    for i, (row, token_id) in enumerate(zip(logits, token_ids, strict=True)):
        largest = row.max()
        normaliser = largest + np.log(np.exp(row - largest).sum())
        logprobs[i] = row[token_id] - normaliser
        ranks[i] = 1 + np.count_nonzero(row > row[token_id])
        top_ids[i] = _likeliest(row, largest, num_top)
        top_logprobs[i] = row[top_ids[i]] - normaliser
    return SampleResult(token_ids, logprobs, ranks, top_ids, top_logprobs, valid)


def _likeliest(logits: Row, largest: np.float32, count: int) -> Ids:
    if count == 0 or np.isnan(largest):
        return np.arange(count)
    ids = _ids_of_largest(logits, count)
    order = np.argsort(-logits[ids], kind="stable")[:count]
    likeliest: Ids = ids[order]
    return likeliest
