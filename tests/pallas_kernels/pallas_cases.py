"""Batches that the Pallas kernels are checked in, and what they shall give."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.experimental.pallas import tpu as pltpu

from octavo.api import AttentionParams, AttentionPlan, KVSpec, each_step_tree
from octavo.testing import oracle
from octavo_tpu.kernels.layout import RowCache, make_cache, pack

each_step_tree(jax.tree_util.register_dataclass)

# A copy happens as late as it may, and a clock for each of many copies: with few, one wait orders
# all copies that share its clock, and their races are missed.
INTERPRETER = pltpu.InterpretParams(
    detect_races=True, uninitialized_memory="nan", vector_clock_size=32
)
EAGER = dataclasses.replace(INTERPRETER, dma_execution_mode="eager")
POISON = {"float8_e4m3fn": ml_dtypes.float8_e4m3fn(np.nan), "int8": np.int8(-128)}


@dataclass(frozen=True)
class Case:
    """Sequences are (tokens in the cache before this step, tokens of this step)."""

    seqs: tuple[tuple[int, int], ...]
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    block_size: int = 16
    dtype: str = "float32"
    kv_dtype: str | None = None
    window: int | None = None
    soft_cap: float | None = None
    causal: bool = True
    sinks: bool = False
    padded_tokens: int = 0
    padded_seqs: int = 0

    @property
    def stored(self) -> str:
        return self.kv_dtype or self.dtype

    @property
    def params(self) -> AttentionParams:
        return AttentionParams(self.head_dim**-0.5, self.window, self.soft_cap, self.causal)

    def __str__(self) -> str:
        """What differs from the defaults; also the test's name."""
        fields = [f for f in dataclasses.fields(self)[1:] if getattr(self, f.name) != f.default]
        words = [f"{past}:{new}" for past, new in self.seqs]
        return "+".join(words) + "".join(f" {f.name}={getattr(self, f.name)}" for f in fields)


@dataclass(frozen=True)
class Batch:
    """A case filled with numbers. ``cache`` holds what was before this step; k and v are new."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    cache: RowCache
    plan: AttentionPlan
    sinks: np.ndarray | None
    keys: list[np.ndarray]  # of each sequence, whole, as the model computes them
    values: list[np.ndarray]


def make_batch(case: Case) -> Batch:
    rng = np.random.default_rng(7)
    plan = make_plan(case, rng)
    dtype = np.dtype(getattr(ml_dtypes, case.dtype, case.dtype))

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    shape = (case.kv_heads, case.head_dim)
    keys = [normal(past + new, *shape) for past, new in case.seqs]
    values = [normal(past + new, *shape) for past, new in case.seqs]
    padding = normal(case.padded_tokens, *shape)
    news = [new for _, new in case.seqs]
    k, v = (
        np.concatenate([x[len(x) - new :] for x, new in zip(side, news, strict=True)] + [padding])
        for side in (keys, values)
    )
    cache = filled_cache(case, plan, keys, values)
    q = normal(len(k), case.heads, case.head_dim)
    sinks = normal(case.heads) if case.sinks else None
    return Batch(q, k, v, cache, plan, sinks, keys, values)


def make_plan(case: Case, rng: np.random.Generator) -> AttentionPlan:
    """Blocks in a random order; of windowed sequences, those behind the window are freed."""
    lengths = [past + new for past, new in case.seqs]
    counts = [-(-length // case.block_size) for length in lengths]
    num_seqs = len(lengths) + case.padded_seqs
    free = list(rng.permutation(np.arange(1, sum(counts) + 3)))
    table = np.zeros((num_seqs, max(counts) + 1), np.int32)
    slots, token_seqs, positions = [], [], []
    for seq, (past, new) in enumerate(case.seqs):
        first_key = 0 if case.window is None else max(0, past - case.window + 1)
        for place in range(counts[seq]):
            if place >= first_key // case.block_size:
                table[seq, place] = free.pop()
        at = np.arange(past, past + new)
        slots.extend(table[seq, at // case.block_size] * case.block_size + at % case.block_size)
        token_seqs.extend([seq] * new)
        positions.extend(at)
    padding = [0] * case.padded_tokens
    news = [new for _, new in case.seqs] + [0] * case.padded_seqs
    arrays = {
        "block_table": table,
        "slots": [*slots, *padding],
        "token_seqs": [*token_seqs, *padding],
        "positions": [*positions, *padding],
        "query_start": np.concatenate([[0], np.cumsum(news)]),
        "seq_lens": [*lengths, *([0] * case.padded_seqs)],
    }
    return AttentionPlan(**{name: np.asarray(a, np.int32) for name, a in arrays.items()})


def filled_cache(case, plan, keys, values) -> RowCache:
    """What past steps wrote, put there with NumPy; NaN wherever no sequence has anything."""
    num_blocks = int(plan.block_table.max()) + 3
    spec = KVSpec("full", case.kv_heads, case.head_dim, case.stored)
    cache = make_cache(spec, num_blocks, case.block_size)
    rows = np.full(cache.rows.shape, POISON.get(case.stored, np.nan), cache.rows.dtype)
    scales = None if cache.scales is None else np.full(cache.scales.shape, np.nan, np.float32)
    packed, packed_scales = jax.jit(pack, static_argnums=0)(
        cache.layout, np.concatenate(keys), np.concatenate(values)
    )
    packed, table, first = np.asarray(packed), np.asarray(plan.block_table), 0
    for seq, (past, new) in enumerate(case.seqs):
        at = np.arange(past)
        blocks, offsets = table[seq, at // case.block_size], at % case.block_size
        kept = blocks > 0
        places = (blocks[kept], offsets[kept])
        rows[places] = packed[first + at[kept]]
        if scales is not None:
            scales[places[0], :, places[1]] = np.asarray(packed_scales)[first + at[kept]]
        first += past + new
    placed = None if scales is None else jnp.asarray(scales)
    return RowCache(jnp.asarray(rows), placed, cache.kv_heads, cache.head_dim)


def expected(case: Case, batch: Batch) -> np.ndarray:
    """Dense attention of every real token, in float64, on keys that no cache has rounded."""
    parts, first = [], 0
    for (past, new), k, v in zip(case.seqs, batch.keys, batch.values, strict=True):
        parts.append(
            oracle.attention(
                batch.q[first : first + new],
                k,
                v,
                past,
                scale=case.params.scale,
                window=case.window,
                soft_cap=case.soft_cap,
                causal=case.causal,
                sinks=batch.sinks,
            )
        )
        first += new
    return np.concatenate(parts)
