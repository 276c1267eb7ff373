"""Runs attention over a paged step and holds it against dense float64, sequence by sequence."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from octavo.ops.protocol import AttentionParams
from octavo.testing import oracle
from octavo.testing.comparison import expect_close, expect_form
from octavo.testing.diagnosis import DenseSequence, attend_all, attention_variants
from octavo.testing.feed import Feed
from octavo.testing.paged_step import PagedCase, PagedStep, build_step
from octavo.testing.placed_plans import placed_plans
from octavo.testing.tolerances import tolerance_of

if TYPE_CHECKING:
    from octavo.ops.protocol import Cache
    from octavo.testing.subject import Subject

__all__ = [
    "AttentionCase",
    "attended_rows",
    "build",
    "dense_sequences",
    "oracle_settings",
    "params_of",
    "run_attention",
]

Values = Callable[[NDArray[Any]], NDArray[Any]]
_AXES = ("token", "head", "feature")


def _as_drawn(values: NDArray[Any]) -> NDArray[Any]:
    return values


@dataclass(frozen=True)
class AttentionCase:
    """A paged step, and how attention is asked for."""

    paged: PagedCase
    dtype: str = "float32"
    op: Literal["paged_attention", "attend", "rope_attend"] = "paged_attention"
    change_q: Values = _as_drawn
    change_k: Values = _as_drawn
    change_v: Values = _as_drawn
    unit: float = 1.0  # about the size of the values; the dtype's tolerance is meant for 1
    rotary_dim: int = 0  # of rope_attend


def build(subject: Subject, case: AttentionCase) -> PagedStep:
    """The step, with q, k and v changed element by element, wherever they are held."""
    # Sinks that differ from case to case, as they do from layer to layer.
    seed = zlib.crc32(case.paged.label.encode()) if case.paged.sinks else 0
    step = build_step(subject, case.paged, case.dtype, seed)
    q, k, v = case.change_q, case.change_k, case.change_v
    storage = step.q.dtype
    return replace(
        step,
        q=q(step.q).astype(storage),
        k=k(step.k).astype(storage),
        v=v(step.v).astype(storage),
        k_cache=k(step.k_cache).astype(storage),
        v_cache=v(step.v_cache).astype(storage),
        dense=tuple(
            (k(keys).astype(storage), v(vals).astype(storage)) for keys, vals in step.dense
        ),
    )


def run_attention(subject: Subject, case: AttentionCase) -> None:
    """Write this step's keys and values, attend, and compare every token that is no padding."""
    step = build(subject, case)
    feed = Feed(subject, case.dtype)
    (plan,) = placed_plans(subject.backend, step.batch, case.paged.block_size)
    cache = step.cache(subject)
    if case.op == "paged_attention":
        cache = feed.call("write_kv", cache, step.k, step.v, plan)
        _compare(step, "The result of paged_attention", _read(feed, step, cache, plan), case.unit)
        return
    rest = (cache, plan, params_of(step), step.sinks)
    if case.op == "attend":
        attended, cache = feed.call("attend", step.q, step.k, step.v, *rest)
    else:
        # Turned back here, so that what rope_attend has turned is what the dense sequences hold.
        angles = _angles(len(step.q), case.rotary_dim)
        q, k = (oracle.rope(x, -angles).astype(x.dtype) for x in (step.q, step.k))
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        attended, cache = feed.call("rope_attend", q, k, step.v, cos, sin, *rest)
    _compare(step, f"The result of {case.op}", np.asarray(subject.get(attended)))
    what = f"The result of paged_attention over the cache that {case.op} returned"
    _compare(step, what, _read(feed, step, cache, plan))


def _angles(num_tokens: int, rotary_dim: int) -> NDArray[np.float64]:
    """[tokens, rotary_dim / 2]: another one for each token and pair."""
    angles: NDArray[np.float64] = 3 * np.sin(np.arange(num_tokens * rotary_dim // 2) + 1.0)
    return angles.reshape(num_tokens, -1)


def attended_rows(subject: Subject, case: AttentionCase) -> NDArray[Any]:
    """What paged_attention gives for the tokens that are no padding."""
    step = build(subject, case)
    feed = Feed(subject, case.dtype)
    (plan,) = placed_plans(subject.backend, step.batch, case.paged.block_size)
    cache = feed.call("write_kv", step.cache(subject), step.k, step.v, plan)
    return _read(feed, step, cache, plan)[: step.num_real_tokens]


def _read(feed: Feed, step: PagedStep, cache: Cache, plan: Any) -> NDArray[Any]:
    return feed.get("paged_attention", step.q, cache, plan, params_of(step), step.sinks)


def params_of(step: PagedStep) -> AttentionParams:
    """As a layer of a model would give them."""
    case = step.case
    scale = case.head_dim**-0.5 if case.scale is None else case.scale
    return AttentionParams(scale, case.window, case.soft_cap, case.causal)


def _compare(step: PagedStep, what: str, result: NDArray[Any], unit: float = 1.0) -> None:
    expect_form(what, result, step.q.shape, step.dtype)
    sequences, settings = dense_sequences(step), oracle_settings(step)
    expect_close(
        what,
        result[: step.num_real_tokens],
        attend_all(sequences, settings),
        tolerance_of(step.dtype, step.spec.dtype).scaled(unit),
        axes=_AXES,
        variants=tuple(attention_variants(sequences, step.case.block_size, settings)),
    )


def dense_sequences(step: PagedStep) -> list[DenseSequence]:
    """What the step stands for, without pages."""
    starts = np.asarray(step.batch.query_start)
    return [
        DenseSequence(step.q[starts[seq] : starts[seq + 1]], k, v, step.case.seqs[seq][0])
        for seq, (k, v) in enumerate(step.dense)
    ]


def oracle_settings(step: PagedStep) -> dict[str, Any]:
    """The keyword arguments of the oracle's attention."""
    params = params_of(step)
    return {
        "scale": params.scale,
        "window": params.window,
        "soft_cap": params.soft_cap,
        "causal": params.causal,
        "sinks": None if step.sinks is None else oracle.float64(step.sinks),
    }
