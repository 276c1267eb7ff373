"""Sequences that grow step by step in a paged cache, attended by the native kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from kernel_case import DTYPES, run
from numpy.typing import NDArray

from octavo.api import AttentionParams, KVSpec
from octavo.testing import oracle
from octavo_cpu.native.caches import NativeCache, make_cache
from octavo_cpu.native.instruction import Element, Opcode
from octavo_cpu.native.library import Context
from octavo_cpu.native.plan import NativePlan, make_plan, make_scratch

Rows = NDArray[Any]

_SCRATCH = make_scratch()


@dataclass(frozen=True)
class Case:
    """What is attended, and how it is kept."""

    heads: int = 3
    kv_heads: int = 1
    head_dim: int = 64
    element: Element = Element.BF16
    kv_dtype: str = "bfloat16"
    block_size: int = 16
    window: int | None = None
    soft_cap: float | None = None
    causal: bool = True
    has_sinks: bool = False
    lens: tuple[int, ...] = (600,)

    @property
    def params(self) -> AttentionParams:
        """The layer's settings."""
        return AttentionParams(self.head_dim**-0.5, self.window, self.soft_cap, self.causal)


@dataclass(frozen=True)
class Texts:
    """Queries, keys and values of each sequence: [tokens, heads, head_dim]."""

    q: list[Rows]
    k: list[Rows]
    v: list[Rows]
    sinks: Rows | None


def make_texts(case: Case, seed: int = 0) -> Texts:
    """Random numbers of about unit size; scores of a few units."""
    random = np.random.default_rng(seed)
    dtype = DTYPES[case.element]

    def rows(heads: int) -> list[Rows]:
        return [
            random.normal(size=(length, heads, case.head_dim)).astype(dtype) for length in case.lens
        ]

    sinks = random.normal(size=case.heads).astype(dtype) if case.has_sinks else None
    return Texts(rows(case.heads), rows(case.kv_heads), rows(case.kv_heads), sinks)


def expected(case: Case, texts: Texts, seq: int) -> NDArray[np.float64]:
    """The oracle's answer for a whole sequence."""
    params = case.params
    return oracle.attention(
        texts.q[seq],
        texts.k[seq],
        texts.v[seq],
        0,
        scale=params.scale,
        window=params.window,
        soft_cap=params.soft_cap,
        causal=params.causal,
        sinks=texts.sinks,
    )


@dataclass
class PagedSequences:
    """A cache full of NaN, in which sequences get blocks in an order that ``seed`` gives."""

    opened: Context
    case: Case
    texts: Texts
    num_threads: int = 2
    seed: int = 0
    stored: dict[int, int] = field(default_factory=dict)  # tokens of each sequence so far
    cache: NativeCache = field(init=False)
    tables: list[NDArray[np.int32]] = field(init=False)

    def __post_init__(self) -> None:
        case = self.case
        counts = [-(-length // case.block_size) for length in case.lens]
        num_blocks = 2 * sum(counts) + 1
        order = 1 + np.random.default_rng(self.seed).permutation(num_blocks - 1).astype(np.int32)
        self.tables = np.split(order[: sum(counts)], np.cumsum(counts)[:-1])
        kind = "full" if case.window is None else "sliding"
        spec = KVSpec(kind, case.kv_heads, case.head_dim, case.kv_dtype, case.window)
        self.cache = make_cache(spec, num_blocks, case.block_size)
        if self.cache.scales is None:
            self.cache.k[:] = np.nan
            self.cache.v[:] = np.nan
        else:
            self.cache.scales[:] = np.nan

    def step(self, queries: Sequence[tuple[int, int]], padding: int = 0) -> list[Rows]:
        """Add the next tokens of some sequences, ``(sequence, tokens)``; what each of them gets."""
        spans = []
        for seq, tokens in queries:
            start = self.stored.get(seq, 0)
            spans.append((seq, start, start + tokens))
            self.stored[seq] = start + tokens
        plan = self._plan(spans, padding)
        k, v, q = (self._rows(rows, spans, padding) for rows in self._kv_q())
        self._write(k, v, plan)
        out = self._attend(q, plan)
        counts = np.cumsum([end - start for _, start, end in spans])
        return np.split(out, counts)[: len(spans)]

    def _kv_q(self) -> tuple[list[Rows], list[Rows], list[Rows]]:
        return self.texts.k, self.texts.v, self.texts.q

    @staticmethod
    def _rows(rows: list[Rows], spans: list[tuple[int, int, int]], padding: int) -> Rows:
        parts = [rows[seq][start:end] for seq, start, end in spans]
        # Every second feature row is somebody else's: strides are not those of contiguous rows.
        joined = np.concatenate([*parts, np.zeros((padding, *rows[0].shape[1:]), rows[0].dtype)])
        wide = np.full((len(joined), 2, *joined.shape[1:]), np.nan, joined.dtype)
        wide[:, 0] = joined
        return wide[:, 0]

    def _plan(self, spans: list[tuple[int, int, int]], padding: int) -> NativePlan:
        size = self.case.block_size
        slots = [
            self.tables[seq][np.arange(start, end) // size] * size + np.arange(start, end) % size
            for seq, start, end in spans
        ]
        width = max(len(self.tables[seq]) for seq, _, _ in spans) + 1
        table = np.zeros((len(spans) + bool(padding), width), np.int32)
        for row, (seq, _, end) in enumerate(spans):
            used = -(-end // size)
            table[row, :used] = self.tables[seq][:used]
        counts = [end - start for _, start, end in spans]
        ends = [end for _, _, end in spans]
        pads = [0] * bool(padding)
        batch = SimpleNamespace(
            query_start=np.cumsum([0, *counts, *pads]).astype(np.int32),
            seq_lens=np.array([*ends, *pads], np.int32),
        )
        all_slots = np.concatenate([*slots, np.zeros(padding, np.int32)]).astype(np.int32)
        group = SimpleNamespace(block_table=table, slots=all_slots)
        plan: Any = make_plan  # stands in for the whole batch
        made: NativePlan = plan(batch, group, size, num_threads=self.num_threads, scratch=_SCRATCH)
        return made

    def _write(self, k: Rows, v: Rows, plan: NativePlan) -> None:
        case, cache = self.case, self.cache
        strides = [stride // rows.itemsize for rows in (k, v) for stride in rows.strides[:2]]
        sizes = [len(k), case.kv_heads, case.head_dim, *strides, case.block_size, cache.element]
        operands = [k, v, cache.k, cache.v, cache.scales, plan.buffer]
        run(self.opened, Opcode.WRITE_KV, case.element, operands, sizes)

    def _attend(self, q: Rows, plan: NativePlan) -> Rows:
        case, cache = self.case, self.cache
        out = np.full((len(q), case.heads, case.head_dim), np.nan, q.dtype)
        operands = [q, cache.k, cache.v, cache.scales, plan.buffer, plan.scratch]
        operands += [self.texts.sinks, out]
        strides = [stride // q.itemsize for stride in q.strides[:2]]
        sizes = [
            len(q),
            case.heads,
            case.kv_heads,
            case.head_dim,
            *strides,
            case.block_size,
            case.window or 0,
            case.causal,
            cache.element,
        ]
        scalars = (case.params.scale, case.soft_cap or 0.0)
        for opcode in (Opcode.ATTENTION, Opcode.ATTENTION_COMBINE):
            run(self.opened, opcode, case.element, operands, sizes, scalars)
        return out
