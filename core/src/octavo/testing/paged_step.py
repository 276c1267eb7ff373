"""A step over a paged cache, made from dense sequences, in which everything unowned is poison.

Physical blocks and sequences come in a shuffled order; slots that no sequence may read hold NaN
(or, in a cache that cannot hold NaN, a number far out of range); so does the padding of K and V.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from octavo.batch import GroupBatch, StepBatch
from octavo.kv import KVSpec
from octavo.testing.placed_plans import placed_plans

if TYPE_CHECKING:
    from octavo.ops.protocol import Cache
    from octavo.testing.subject import Subject

__all__ = ["DTYPES", "Layout", "PagedCase", "PagedStep", "build_step", "fill_cache", "pad_rows"]

Floats = NDArray[Any]
Int32 = NDArray[np.int32]

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
_BIG = 100.0  # poison where NaN cannot be stored: a hundred times what real values are


@dataclass(frozen=True)
class PagedCase:
    """Sequences as (tokens in the cache before this step, tokens in this step)."""

    seqs: tuple[tuple[int, int], ...]
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 16
    block_size: int = 4
    window: int | None = None
    soft_cap: float | None = None
    scale: float | None = None  # None: head_dim ** -0.5
    sinks: bool = False
    causal: bool = True
    shuffled: bool = True
    padded_tokens: int = 0
    padded_seqs: int = 0
    kv_dtype: str | None = None  # None: as q
    spare_blocks: int = 2  # that belong to nobody

    @property
    def label(self) -> str:
        """What differs from the defaults, and the sequences as past:new+past:new."""
        default = PagedCase(self.seqs)
        changed = [
            f"{field.name}={getattr(self, field.name)}"
            for field in fields(self)
            if field.name != "seqs" and getattr(self, field.name) != getattr(default, field.name)
        ]
        lengths = "+".join(f"{past}:{new}" for past, new in self.seqs)
        return " ".join([lengths, *changed])

    @property
    def spec(self) -> KVSpec:
        """What one layer stores; the dtype is filled in by ``build_step``."""
        dtype = self.kv_dtype or "float32"
        if self.window is None:
            return KVSpec("full", self.kv_heads, self.head_dim, dtype)
        return KVSpec("sliding", self.kv_heads, self.head_dim, dtype, self.window)


@dataclass(frozen=True)
class PagedStep:
    """What a backend gets, and the dense sequences that it stands for."""

    case: PagedCase
    dtype: str
    spec: KVSpec
    batch: StepBatch  # on the host, padded to the backend's buckets
    q: Floats  # [tokens, heads, head_dim]
    k: Floats  # [tokens, kv_heads, head_dim]
    v: Floats
    k_cache: Floats  # [num_blocks, block_size, kv_heads, head_dim]: before the step
    v_cache: Floats
    sinks: Floats | None
    dense: tuple[tuple[Floats, Floats], ...]  # k, v of each sequence with this step's, unrounded
    num_real_tokens: int

    def cache(self, subject: Subject) -> Cache:
        """A cache of the subject's that holds ``k_cache`` and ``v_cache``."""
        return fill_cache(subject, self.spec, self.k_cache, self.v_cache)


def fill_cache(subject: Subject, spec: KVSpec, k_blocks: Floats, v_blocks: Floats) -> Cache:
    """A new cache written through ``write_kv``; K and V are [num_blocks, block_size, heads, dim].

    Block 0 is written as well: it is where padding goes, and nobody may read it.
    """
    num_blocks, block_size = k_blocks.shape[:2]
    num_slots = num_blocks * block_size
    slots = np.arange(num_slots, dtype=np.int32)
    # One sequence that owns every block, so that the batch is one that could occur.
    batch = StepBatch(
        token_ids=np.zeros(num_slots, np.int32),
        positions=slots,
        token_seqs=np.zeros(num_slots, np.int32),
        query_start=np.array([0, num_slots], np.int32),
        seq_lens=np.array([num_slots], np.int32),
        context_lens=slots + 1,
        logits_rows=np.array([num_slots - 1], np.int32),
        groups=(GroupBatch(np.arange(num_blocks, dtype=np.int32)[None], slots),),
    )
    batch = subject.buckets.pad_batch(batch)
    (plan,) = placed_plans(subject.backend, batch, block_size)
    k, v = (
        pad_rows(blocks.reshape(num_slots, *blocks.shape[2:]), len(batch.token_ids))
        for blocks in (k_blocks, v_blocks)
    )
    if len(batch.token_ids) > num_slots:  # what pads goes to slot 0, in whatever order
        k[num_slots:], v[num_slots:] = k[0], v[0]
    cache = subject.backend.make_kv(spec, num_blocks, block_size)
    return subject.ops.write_kv(cache, subject.put(k), subject.put(v), plan)


def build_step(subject: Subject, case: PagedCase, dtype: str, seed: int = 0) -> PagedStep:
    """Random dense sequences laid out over blocks, and the batch of their newest tokens."""
    rng = np.random.default_rng(seed)
    storage = DTYPES[dtype]
    spec = replace(case.spec, dtype=case.kv_dtype or dtype)
    poison = np.nan if spec.dtype in DTYPES else _BIG
    layout = Layout.of(case, rng)
    shape = (layout.num_blocks, case.block_size, case.kv_heads, case.head_dim)
    k_cache, v_cache = (np.full(shape, poison, storage) for _ in "kv")
    dense = tuple(_random_kv(rng, case, storage, past + new) for past, new in case.seqs)
    for seq, (past, _) in enumerate(case.seqs):
        # What lies behind the window may have been given to somebody else: it stays poison.
        old = np.arange(layout.first_visible[seq], past, dtype=np.int32)
        for stored, source in zip((k_cache, v_cache), dense[seq], strict=True):
            stored.reshape(-1, *shape[2:])[layout.slots_of(seq, old)] = source[old]
    tokens = layout.num_tokens
    new_rows = [
        np.concatenate([kv[which][past:] for kv, (past, _) in zip(dense, case.seqs, strict=True)])
        for which in (0, 1)
    ]
    batch = subject.buckets.pad_batch(layout.batch())
    num_rows = len(batch.token_ids)
    q = rng.standard_normal((tokens, case.heads, case.head_dim)).astype(storage)
    return PagedStep(
        case=case,
        dtype=dtype,
        spec=spec,
        batch=batch,
        q=pad_rows(q, num_rows, rng.standard_normal()),
        k=pad_rows(new_rows[0], num_rows, poison),
        v=pad_rows(new_rows[1], num_rows, poison),
        k_cache=k_cache,
        v_cache=v_cache,
        sinks=rng.standard_normal(case.heads).astype(storage) if case.sinks else None,
        dense=dense,
        num_real_tokens=tokens,
    )


def _random_kv(
    rng: np.random.Generator, case: PagedCase, dtype: np.dtype[Any], length: int
) -> tuple[Floats, Floats]:
    k, v = (rng.standard_normal((length, case.kv_heads, case.head_dim)).astype(dtype) for _ in "kv")
    return k, v


def pad_rows(rows: Floats, num_rows: int, value: float = 0.0) -> Floats:
    """The rows with so many of ``value`` below them that they are ``num_rows``."""
    padding = np.full((num_rows - len(rows), *rows.shape[1:]), value, rows.dtype)
    return np.concatenate([rows, padding])


@dataclass(frozen=True)
class Layout:
    """Which physical blocks each sequence owns, and which of its keys may still be seen."""

    case: PagedCase
    blocks: Sequence[Int32]  # of each sequence, in order
    first_visible: Sequence[int]  # position from which a window still sees keys; 0 without one
    num_blocks: int

    @classmethod
    def of(cls, case: PagedCase, rng: np.random.Generator) -> Layout:
        """Blocks for each sequence of a case, in a random order where it asks for one."""
        needed = [-(-(past + new) // case.block_size) for past, new in case.seqs]
        num_blocks = 1 + sum(needed) + case.spare_blocks
        order = np.arange(1, num_blocks, dtype=np.int32)
        if case.shuffled:
            order = rng.permutation(order)
        ends = np.cumsum(needed)
        blocks = [order[end - count : end] for count, end in zip(needed, ends, strict=True)]
        behind = [
            0 if case.window is None or not case.causal else max(0, past - case.window + 1)
            for past, _ in case.seqs
        ]
        return cls(case, blocks, behind, num_blocks)

    @property
    def num_tokens(self) -> int:
        """Of this step, padding aside."""
        return sum(new for _, new in self.case.seqs)

    def slots_of(self, seq: int, positions: Int32) -> Int32:
        """Where these positions of a sequence lie."""
        size = self.case.block_size
        slots: Int32 = self.blocks[seq][positions // size] * size + positions % size
        return slots.astype(np.int32)

    def batch(self) -> StepBatch:
        """The step's batch with the case's own padding; buckets come on top."""
        case, size = self.case, self.case.block_size
        num_seqs = len(case.seqs) + case.padded_seqs
        table = np.zeros((num_seqs, max(map(len, self.blocks)) + 1), np.int32)
        for seq, blocks in enumerate(self.blocks):
            table[seq, : len(blocks)] = blocks
            table[seq, : self.first_visible[seq] // size] = 0  # given back
        spans = [np.arange(past, past + new, dtype=np.int32) for past, new in case.seqs]
        padding = np.zeros(case.padded_tokens, np.int32)
        positions = np.concatenate(spans)
        slots = np.concatenate([self.slots_of(seq, span) for seq, span in enumerate(spans)])
        counts = [len(span) for span in spans]
        return StepBatch(
            token_ids=np.zeros(self.num_tokens + case.padded_tokens, np.int32),
            positions=np.concatenate([positions, padding]),
            token_seqs=np.concatenate(
                [np.repeat(np.arange(len(counts)), counts).astype(np.int32), padding + num_seqs - 1]
            ),
            query_start=np.cumsum([0, *counts, *[0] * case.padded_seqs], dtype=np.int32),
            seq_lens=np.array(
                [past + new for past, new in case.seqs] + [0] * case.padded_seqs, np.int32
            ),
            context_lens=np.concatenate([positions + 1, padding + 1]),
            logits_rows=np.cumsum(counts, dtype=np.int32) - 1,
            groups=(GroupBatch(table, np.concatenate([slots, padding])),),
        )
