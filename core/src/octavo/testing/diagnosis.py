"""Recognises a fault by its result: tries wrong variants of the mathematics and names what fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from octavo.testing import oracle

__all__ = ["DenseSequence", "Variant", "attend_all", "attention_variants", "diagnose"]

Float64 = NDArray[np.float64]
Variant: TypeAlias = tuple[str, Callable[[], Float64]]
"""What would be wrong, to follow "It looks as if"; and the result that this would give."""


@dataclass(frozen=True)
class DenseSequence:
    """The queries of one step and all keys and values of their sequence."""

    q: NDArray[Any]  # [queries, heads, head_dim]
    k: NDArray[Any]  # [keys, kv_heads, head_dim]
    v: NDArray[Any]
    first_position: int  # of the first query


_NAN = (
    "infinity had been divided by infinity or zero by zero, or a slot were read that this sequence "
    "does not own: all that is wrong is NaN"
)
_OVERFLOW = "something had overflowed, or a slot were read that this sequence does not own"
_MIN_ELEMENTS = 3  # fewer may agree with a wrong variant by chance


def diagnose(
    values: Float64,
    expected: Float64,
    wrong: NDArray[np.bool_],
    allowed: Float64,
    variants: Sequence[Variant],
) -> str | None:
    """The first variant that gives ``values`` wherever these are wrong, or what is plain to see.

    Elements that are NaN are left out where others are not: what a fault has read may be poison.
    """
    told = wrong & np.isfinite(values)
    if not told.any():
        return _NAN if np.isnan(values[wrong]).all() else _OVERFLOW
    seen, tolerance = values[told], allowed[told]
    if len(seen) < _MIN_ELEMENTS:
        return None
    if not seen.any() and np.abs(expected[told]).min() > 0:
        return "these elements were never written: they are all 0"
    for likely, make in variants:
        with np.errstate(all="ignore"):  # a wrong formula may overflow
            fits = np.abs(seen - make()[told]) <= tolerance
        if fits.all():
            return likely
    return None if told.sum() == wrong.sum() else _OVERFLOW


def attention_variants(
    sequences: Sequence[DenseSequence], block_size: int, settings: Mapping[str, Any]
) -> Iterator[Variant]:
    """Wrong attentions over these sequences; ``settings`` are the oracle's keyword arguments."""

    def variant(
        likely: str, change: Callable[[DenseSequence], DenseSequence] = _unchanged, **changed: Any
    ) -> Variant:
        return likely, lambda: attend_all(map(change, sequences), {**settings, **changed})

    window, scale, cap, sinks = (settings[x] for x in ("window", "scale", "soft_cap", "sinks"))
    if window is not None:
        yield variant("the window were one key too long", window=window + 1)
        yield variant("the window were one key too short", window=window - 1)
        yield variant("the window were ignored", window=None)
    if settings["causal"]:
        longer = None if window is None else window + 1
        yield variant("a query saw one key of the future", _moved(1), window=longer)
        yield variant("the causal mask were missing", causal=False)
    else:
        yield variant("causal=False were ignored", causal=True)
    yield variant("keys and values were swapped", lambda x: replace(x, k=x.v, v=x.k))
    yield variant(
        "query head h read KV head h % kv_heads, and not h // (heads // kv_heads)", _interleaved
    )
    if cap is not None:
        yield variant("the soft-cap were ignored", soft_cap=None)
        yield variant("the soft-cap were applied before the scale", soft_cap=cap * scale)
    if sinks is not None:
        kv_heads = sequences[0].k.shape[1]
        shared = np.repeat(sinks[:kv_heads], len(sinks) // kv_heads)
        yield variant("the sinks were ignored", sinks=None)
        yield variant("the sinks were read by KV head", sinks=shared)
        yield variant("the sinks were multiplied by the scale", sinks=sinks * scale)
    yield variant("the scale were missing", scale=1.0)
    yield variant("the scale were applied twice", scale=scale * scale)
    yield variant("only this step's keys were read", lambda x: _without(x, first=x.first_position))
    yield variant("this step's keys were not read", lambda x: _kept(x, x.first_position))
    yield variant(
        "the last block were not read where a sequence ends on its edge",
        lambda x: _kept(x, len(x.k) - block_size * (len(x.k) % block_size == 0)),
    )
    yield variant(
        "the last block were not read where it is partly filled",
        lambda x: _kept(x, len(x.k) // block_size * block_size),
    )
    yield variant("the first block were not read", lambda x: _without(x, first=block_size))
    if settings["causal"]:
        shorter = None if window is None else window - 1
        yield variant("a query did not see its own key", _moved(-1), window=shorter)


def attend_all(sequences: Iterable[DenseSequence], settings: Mapping[str, Any]) -> Float64:
    """The oracle's attention of each sequence, one after the other: [tokens, heads, dim]."""
    return np.concatenate(
        [oracle.attention(x.q, x.k, x.v, x.first_position, **settings) for x in sequences]
    )


def _unchanged(sequence: DenseSequence) -> DenseSequence:
    return sequence


def _moved(by: int) -> Callable[[DenseSequence], DenseSequence]:
    """Queries that believe to stand elsewhere."""
    return lambda sequence: replace(sequence, first_position=sequence.first_position + by)


def _kept(sequence: DenseSequence, num_keys: int) -> DenseSequence:
    return replace(sequence, k=sequence.k[:num_keys], v=sequence.v[:num_keys])


def _without(sequence: DenseSequence, first: int) -> DenseSequence:
    return DenseSequence(
        sequence.q, sequence.k[first:], sequence.v[first:], sequence.first_position - first
    )


def _interleaved(sequence: DenseSequence) -> DenseSequence:
    kv_heads = np.arange(sequence.q.shape[1]) % sequence.k.shape[1]
    return replace(sequence, k=sequence.k[:, kv_heads], v=sequence.v[:, kv_heads])
