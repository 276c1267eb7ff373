"""Checks that what an op returned stays as it is while others are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from octavo.ops.protocol import RopeSpec
from octavo.testing.check import Case, Check, CheckFailure
from octavo.testing.checks.attention_run import params_of
from octavo.testing.feed import Feed
from octavo.testing.paged_step import PagedCase, build_step
from octavo.testing.placed_plans import placed_plans

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["CHECKS"]

_ROWS, _DIM = 3, 32
_SPEC = RopeSpec("default", 8, 10_000.0, (1.0, 0.1, 0.01, 0.001))


def _linear(feed: Feed) -> Any:
    return feed.call("linear", feed.normal(_ROWS, _DIM), feed.linear(feed.normal(_DIM, _DIM)))


def _mlp(feed: Feed) -> Any:
    gate_up, down = (feed.linear(feed.normal(rows, _DIM)) for rows in (2 * _DIM, _DIM))
    return feed.call("mlp", feed.normal(_ROWS, _DIM), gate_up, down, "silu")


def _rope_table(feed: Feed) -> Any:
    positions = feed.rng.integers(0, 99, _ROWS).astype(np.int32)
    return feed.call("rope_table", positions, positions + 1, _SPEC)


def _rope(feed: Feed) -> Any:
    cos, sin = (feed.rng.uniform(-1, 1, (_ROWS, 4)).astype(np.float32) for _ in "cs")
    return feed.call("rope", feed.normal(_ROWS, 2, 16), cos, sin)


def _embed(feed: Feed) -> Any:
    ids = feed.rng.integers(0, 9, _ROWS).astype(np.int32)
    return feed.call("embed", ids, feed.normal(9, _DIM))


def _take_rows(feed: Feed) -> Any:
    rows = feed.rng.integers(0, 9, _ROWS).astype(np.int32)
    return feed.call("take_rows", feed.normal(9, _DIM), rows)


def _fill_tokens(feed: Feed) -> Any:
    known, sampled = (feed.rng.integers(0, 999, _ROWS).astype(np.int32) for _ in "ks")
    return feed.call("fill_tokens", known, sampled, np.array([1, 0, 2], np.int32))


def _attention(feed: Feed, *, composite: bool) -> Any:
    subject = feed.subject
    block_size = subject.caps.block_sizes[0]
    kv_dtype = subject.caps.kv_dtypes[0]
    case = PagedCase(((2, 1), (0, 2)), block_size=block_size, kv_dtype=kv_dtype)
    step = build_step(subject, case, feed.dtype, seed=int(feed.rng.integers(99)))
    (plan,) = placed_plans(subject.backend, step.batch, block_size)
    q, k, v = (subject.put(rows) for rows in (step.q, step.k, step.v))
    cache, params, ops = step.cache(subject), params_of(step), subject.ops
    if composite:
        return ops.attend(q, k, v, cache, plan, params)[0]
    return ops.paged_attention(q, ops.write_kv(cache, k, v, plan), plan, params)


def _of_rows(op: str, *static: Any, **keywords: Any) -> Callable[[Feed], Any]:
    return lambda feed: feed.call(op, feed.normal(_ROWS, _DIM), *static, **keywords)


_CALLS: dict[str, Callable[[Feed], Any]] = {
    "embed": _embed,
    "linear": _linear,
    "rms_norm": lambda feed: feed.call(
        "rms_norm", feed.normal(_ROWS, _DIM), feed.normal(_DIM), 1e-5
    ),
    "add_rms_norm": lambda feed: feed.call(
        "add_rms_norm", feed.normal(_ROWS, _DIM), feed.normal(_ROWS, _DIM), feed.normal(_DIM), 1e-5
    ),
    "layer_norm": lambda feed: feed.call(
        "layer_norm", feed.normal(_ROWS, _DIM), feed.normal(_DIM), None, 1e-5
    ),
    "rope_table": _rope_table,
    "rope": _rope,
    "silu_mul": _of_rows("silu_mul"),
    "gelu_mul": _of_rows("gelu_mul", tanh=False),
    "gelu": _of_rows("gelu", tanh=False),
    "soft_cap": _of_rows("soft_cap", 30.0),
    "paged_attention": lambda feed: _attention(feed, composite=False),
    "attend": lambda feed: _attention(feed, composite=True),
    "mlp": _mlp,
    "take_rows": _take_rows,
    "fill_tokens": _fill_tokens,
}


def _run(subject: Subject, op: str) -> None:
    """Two calls of one shape with other numbers; the first result is read before and after."""
    feed = Feed(subject, subject.caps.dtypes[0])
    first = _CALLS[op](feed)
    results = first if isinstance(first, tuple) else (first,)
    before = [np.array(subject.get(result)) for result in results]
    second = _CALLS[op](feed)
    subject.get(second[0] if isinstance(second, tuple) else second)
    for index, (result, wanted) in enumerate(zip(results, before, strict=True)):
        found = np.asarray(subject.get(result))
        if found.tobytes() != wanted.tobytes():
            which = f"Result {index + 1} of {len(results)} of {op}"
            raise CheckFailure(
                f"{which} changed when {op} was called again with arguments of the same shapes: "
                "it lies in memory that the next call writes to. A model may hold on to a result; "
                "return an array that nothing else writes to.",
                look=f"ops.{op}",
            )


def _cases(_subject: Subject) -> Iterator[Case]:
    for op in _CALLS:
        yield Case(op, op)


CHECKS: tuple[Check, ...] = (
    Check(
        "ops",
        "results",
        "what an op returned stays as it is when the op is called again",
        "every op: no scratch buffer may be returned",
        _run,
        _cases,
    ),
)
