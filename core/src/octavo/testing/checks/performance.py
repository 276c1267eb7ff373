"""Performance, reported and never gating: each op as a decode and as a prefill step calls it.

The shapes are those of a model of about a billion parameters. Bytes and operations are counted from
the shapes: each input and output once, two operations for each weight and row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from octavo.ops.protocol import AttentionParams, RopeSpec, SamplingBatch
from octavo.step import map_arrays
from octavo.testing.check import Case, Check
from octavo.testing.checks.performance_timing import Work, measure
from octavo.testing.paged_step import DTYPES, PagedCase, PagedStep, build_step

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["CHECKS"]

_HIDDEN, _INNER, _VOCAB = 2048, 5632, 32_768
_HEADS, _KV_HEADS, _HEAD_DIM = 16, 4, 128
_EPS = 1e-5
_POOL = np.random.default_rng(0).standard_normal(10_007, np.float32)
_ROPE = RopeSpec("default", _HEAD_DIM, 1e4, tuple(1e4 ** -(i / 64) for i in range(64)))


@dataclass(frozen=True)
class _Setting:
    """What a step holds: sequences as (tokens in the cache, tokens in this step)."""

    label: str
    seqs: tuple[tuple[int, int], ...]


_DECODE = _Setting("decode 8 x 1024", ((1023, 1),) * 8)
_PREFILL = _Setting("prefill 256", ((0, 256),))


class _Bench:
    """Makes arrays on the subject's device, and counts what they hold."""

    def __init__(self, subject: Subject, setting: _Setting, *, with_cache: bool = False) -> None:
        self.subject = subject
        self.dtype = subject.caps.dtypes[0]
        self.storage = DTYPES[self.dtype]
        block_size = subject.caps.block_sizes[0]
        heads = (_HEADS, _KV_HEADS, _HEAD_DIM) if with_cache else (1, 1, 8)
        case = PagedCase(setting.seqs, *heads, block_size)
        if not with_cache:  # the batch is all that is wanted
            case = PagedCase(tuple((0, new) for _, new in setting.seqs), *heads, block_size)
        self.step: PagedStep = build_step(subject, case, self.dtype)
        self.tokens = len(self.step.batch.token_ids)

    def normal(self, *shape: int) -> Any:
        """On the device."""
        return self.subject.put(self._host(*shape))

    def put_indices(self, indices: Any) -> Any:
        """int32 of the host batch, on the device."""
        return self.subject.put(np.asarray(indices, np.int32))

    def linear(self, out_features: int, in_features: int) -> Any:
        """A prepared weight."""
        return self.subject.backend.put_linear(
            self._host(out_features, in_features), None, self.dtype
        )

    def _host(self, *shape: int) -> Any:
        """Random numbers that repeat: drawing them all would take longer than measuring."""
        return np.resize(_POOL.astype(self.storage), shape)

    def logits(self) -> Any:
        """[tokens, vocab] in float32, on the device."""
        return self.subject.put(np.resize(_POOL, (self.tokens, _VOCAB)))

    def work(
        self,
        call: Callable[..., Any],
        weights: tuple[Any, ...],
        num_elements: int,
        num_operations: int,
    ) -> Work:
        """``call(ops, *weights)``, which reads and writes so many elements of the dtype."""
        return Work(
            lambda ops, weights, caches, _plans, _sampling: (caches, call(ops, *weights)),
            weights,
            self.step,
            self.sampling(1),
            num_elements * self.storage.itemsize,
            num_operations,
        )

    def sampling(self, num_rows: int) -> SamplingBatch:
        """Rows that sample among the likeliest 95 %, on the device."""
        float_row, int_row = np.zeros(num_rows, np.float32), np.zeros(num_rows, np.int32)
        ids, values = np.zeros(0, np.int32), np.zeros(0, np.float32)
        host = SamplingBatch(
            temperature=float_row + np.float32(0.7),
            top_k=int_row,
            top_p=float_row + np.float32(0.95),
            min_p=float_row,
            uniform=float_row + np.float32(0.5),
            repetition_penalty=float_row + 1,
            presence_penalty=float_row,
            frequency_penalty=float_row,
            seen_rows=ids,
            seen_ids=ids,
            seen_counts=ids,
            bias_rows=ids,
            bias_ids=ids,
            bias_values=values,
            mask=None,
            num_logprobs=-1,
            all_greedy=False,
            plain=True,
        )
        return map_arrays(host, self.subject.put)


def _embed(bench: _Bench) -> Work:
    table, ids = bench.normal(_VOCAB, _HIDDEN), bench.put_indices(bench.step.batch.token_ids)
    elements = 2 * bench.tokens * _HIDDEN
    return bench.work(lambda ops, ids, table: ops.embed(ids, table), (ids, table), elements, 0)


def _linear(bench: _Bench) -> Work:
    x, weight = bench.normal(bench.tokens, _HIDDEN), bench.linear(_HIDDEN, _HIDDEN)
    elements = _HIDDEN * _HIDDEN + 2 * bench.tokens * _HIDDEN
    operations = 2 * bench.tokens * _HIDDEN * _HIDDEN
    return bench.work(lambda ops, *args: ops.linear(*args), (x, weight), elements, operations)


def _mlp(bench: _Bench) -> Work:
    weights = (
        bench.normal(bench.tokens, _HIDDEN),
        bench.linear(2 * _INNER, _HIDDEN),
        bench.linear(_HIDDEN, _INNER),
    )
    num_weights = 3 * _HIDDEN * _INNER
    elements = num_weights + 2 * bench.tokens * _HIDDEN
    operations = 2 * bench.tokens * num_weights
    return bench.work(lambda ops, *args: ops.mlp(*args, "silu"), weights, elements, operations)


def _rows_to_rows(
    call: Callable[..., Any], bench: _Bench, *, inputs: int, vectors: int = 0, outputs: int = 1
) -> Work:
    """``call(ops, x..., vector...)``: what is bound by the rows [tokens, hidden] it moves."""
    rows = [bench.normal(bench.tokens, _HIDDEN) for _ in range(inputs)]
    weights = (*rows, *(bench.normal(_HIDDEN) for _ in range(vectors)))
    elements = (inputs + outputs) * bench.tokens * _HIDDEN + vectors * _HIDDEN
    return bench.work(call, weights, elements, 0)


def _gated(call: Callable[..., Any], bench: _Bench) -> Work:
    gate_up = bench.normal(bench.tokens, 2 * _INNER)
    return bench.work(call, (gate_up,), 3 * bench.tokens * _INNER, 0)


def _rope_table(bench: _Bench) -> Work:
    batch = bench.step.batch
    places = (bench.put_indices(batch.positions), bench.put_indices(batch.context_lens))
    float32_elements = bench.tokens * _HEAD_DIM * 4 // bench.storage.itemsize
    return bench.work(lambda ops, *args: ops.rope_table(*args, _ROPE), places, float32_elements, 0)


def _rope(bench: _Bench) -> Work:
    half = (bench.tokens, _HEAD_DIM // 2)
    cos, sin = (bench.subject.put(np.ones(half, np.float32)) for _ in range(2))
    x = bench.normal(bench.tokens, _HEADS, _HEAD_DIM)
    elements = 2 * bench.tokens * _HEADS * _HEAD_DIM
    return bench.work(lambda ops, *args: ops.rope(*args), (x, cos, sin), elements, 0)


def _take_rows(bench: _Bench) -> Work:
    x, rows = bench.normal(bench.tokens, _HIDDEN), np.arange(bench.tokens, dtype=np.int32)
    elements = 2 * bench.tokens * _HIDDEN
    weights = (x, bench.put_indices(rows))
    return bench.work(lambda ops, *args: ops.take_rows(*args), weights, elements, 0)


def _fill_tokens(bench: _Bench) -> Work:
    ids = np.arange(bench.tokens, dtype=np.int32)
    arrays = tuple(bench.put_indices(each) for each in (ids, ids, ids))
    int32_elements = 4 * bench.tokens * 4 // bench.storage.itemsize
    return bench.work(lambda ops, *args: ops.fill_tokens(*args), arrays, int32_elements, 0)


def _sample(bench: _Bench) -> Work:
    rows = bench.tokens
    return Work(
        lambda ops, weights, caches, _plans, sampling: (caches, ops.sample(weights[0], sampling)),
        (bench.logits(),),
        bench.step,
        bench.sampling(rows),
        4 * rows * _VOCAB,
        0,
        is_sampling=True,
    )


def _token_logprobs(bench: _Bench) -> Work:
    logits = bench.logits()
    weights = (logits, bench.put_indices(bench.step.batch.token_ids))
    float32_elements = bench.tokens * _VOCAB * 4 // bench.storage.itemsize
    return bench.work(lambda ops, *args: ops.token_logprobs(*args, 0), weights, float32_elements, 0)


def _with_cache(op: str, bench: _Bench) -> Work:
    """Attention and its parts over a cache; keys and values that a query sees are read once."""
    step, itemsize = bench.step, bench.storage.itemsize
    params = AttentionParams(scale=_HEAD_DIM**-0.5)
    half = (bench.tokens, _HEAD_DIM // 2)
    tables = (np.ones(half, np.float32),) * 2 if op == "rope_attend" else ()
    weights = tuple(bench.subject.put(array) for array in (step.q, step.k, step.v, *tables))

    def call(ops: Any, weights: Any, caches: Any, plans: Any, _sampling: Any) -> Any:
        q, k, v, *angles = weights
        if op == "write_kv":
            # Waited for is something else that the step computes: a cache is opaque.
            return (ops.write_kv(caches[0], k, v, plans[0]),), q[:1] + q[:1]
        if op == "attend":
            out, cache = ops.attend(q, k, v, caches[0], plans[0], params)
            return (cache,), out
        if op == "rope_attend":
            out, cache = ops.rope_attend(q, k, v, *angles, caches[0], plans[0], params)
            return (cache,), out
        return caches, ops.paged_attention(q, caches[0], plans[0], params)

    written = 2 * bench.tokens * _KV_HEADS * _HEAD_DIM
    read = 2 * sum(past + new for past, new in step.case.seqs) * _KV_HEADS * _HEAD_DIM
    queries = 2 * bench.tokens * _HEADS * _HEAD_DIM
    whole = 2 * written + read + queries
    elements = {"write_kv": 2 * written, "attend": whole, "rope_attend": whole}
    seen = sum(new * past + new * (new + 1) // 2 for past, new in step.case.seqs)
    return Work(
        call,
        weights,
        step,
        bench.sampling(1),
        elements.get(op, read + queries) * itemsize,
        0 if op == "write_kv" else 4 * seen * _HEADS * _HEAD_DIM,
        needs_cache=True,
    )


_OPS: Mapping[str, Callable[[_Bench], Work]] = {
    "embed": _embed,
    "linear": _linear,
    "mlp": _mlp,
    "rms_norm": partial(
        _rows_to_rows, lambda ops, *args: ops.rms_norm(*args, _EPS), inputs=1, vectors=1
    ),
    "add_rms_norm": partial(
        _rows_to_rows,
        lambda ops, *args: ops.add_rms_norm(*args, _EPS),
        inputs=2,
        vectors=1,
        outputs=2,
    ),
    "layer_norm": partial(
        _rows_to_rows, lambda ops, *args: ops.layer_norm(*args, _EPS), inputs=1, vectors=2
    ),
    "silu_mul": partial(_gated, lambda ops, x: ops.silu_mul(x)),
    "gelu_mul": partial(_gated, lambda ops, x: ops.gelu_mul(x, tanh=True)),
    "gelu": partial(_rows_to_rows, lambda ops, x: ops.gelu(x, tanh=True), inputs=1),
    "soft_cap": partial(_rows_to_rows, lambda ops, x: ops.soft_cap(x, 30.0), inputs=1),
    "rope_table": _rope_table,
    "rope": _rope,
    "write_kv": partial(_with_cache, "write_kv"),
    "paged_attention": partial(_with_cache, "paged_attention"),
    "attend": partial(_with_cache, "attend"),
    "rope_attend": partial(_with_cache, "rope_attend"),
    "take_rows": _take_rows,
    "fill_tokens": _fill_tokens,
    "sample": _sample,
    "token_logprobs": _token_logprobs,
}
_CACHE_OPS = ("write_kv", "paged_attention", "attend", "rope_attend")
_DECODE_ONLY = ("sample", "token_logprobs")  # a prefill step wants one row of logits


def _check(op: str) -> Check:
    def cases(_subject: Subject) -> Iterable[Case]:
        for setting in (_DECODE, _PREFILL):
            if setting is _DECODE or op not in _DECODE_ONLY:
                yield Case(setting.label, setting, quick=False)

    def run(subject: Subject, setting: _Setting) -> Mapping[str, float]:
        return measure(subject, _OPS[op](_Bench(subject, setting, with_cache=op in _CACHE_OPS)))

    return Check("performance", op, f"how fast {op} is", f"ops.{op}", run, cases)


CHECKS: tuple[Check, ...] = tuple(map(_check, _OPS))
