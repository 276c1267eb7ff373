"""One layer's cache driven block by block, as the block manager drives it, and read by attention.

No check can look inside a cache. What it holds shows in attention: exactly so where each query is
made to find one key only (``Tokens.lookup``), whose value then comes back to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo.kv import KVSpec
from octavo.ops.protocol import AttentionParams
from octavo.testing.paged_step import DTYPES, Layout, PagedCase, fill_cache, pad_rows
from octavo.testing.placed_plans import placed_plans

if TYPE_CHECKING:
    from octavo.batch import StepBatch
    from octavo.ops.protocol import Cache
    from octavo.testing.subject import Subject

__all__ = ["CacheShape", "Floats", "Held", "ManualCache", "Tokens", "step_batch"]

Floats = NDArray[Any]
_DIGITS = 3  # of the code that tells keys apart
_CODE = 12.0  # two codes that differ in a digit score at least 144 less, and exp(-144) is 0
_BIG = 100.0  # poison for caches that cannot hold NaN
_PARAMS = AttentionParams(scale=1.0)


@dataclass(frozen=True)
class CacheShape:
    """What one layer computes and stores."""

    block_size: int
    dtype: str
    kv_dtype: str
    heads: int = 2
    kv_heads: int = 1
    head_dim: int = 40  # a multiple of 8 and of no more: rows of K and V end at odd places

    @property
    def spec(self) -> KVSpec:
        """Of a layer that sees everything."""
        return KVSpec("full", self.kv_heads, self.head_dim, self.kv_dtype)

    @property
    def storage(self) -> np.dtype[Any]:
        """The NumPy dtype of q, k and v."""
        return DTYPES[self.dtype]

    @property
    def poison(self) -> float:
        """NaN, or what is far out of range where the cache has no NaN."""
        return np.nan if self.kv_dtype in DTYPES else _BIG


@dataclass(frozen=True)
class Tokens:
    """Queries, keys and values of one sequence, from its first token on."""

    q: Floats  # [length, heads, head_dim]
    k: Floats  # [length, kv_heads, head_dim]
    v: Floats

    @classmethod
    def random(cls, shape: CacheShape, length: int, seed: int) -> Tokens:
        """Every token attends to all before it, more or less."""
        rng = np.random.default_rng([seed, length])
        q = rng.standard_normal((length, shape.heads, shape.head_dim)) * shape.head_dim**-0.5
        k, v = (rng.standard_normal((length, shape.kv_heads, shape.head_dim)) for _ in "kv")
        return cls(*(array.astype(shape.storage) for array in (q, k, v)))

    @classmethod
    def lookup(cls, shape: CacheShape, length: int, seed: int) -> Tokens:
        """Every token attends to itself alone: attention gives back its own value.

        Its key is a code of three digits, each a feature that is on or off.
        """
        base = shape.head_dim // _DIGITS
        if length > base**_DIGITS:
            raise ValueError(f"{length=}, but only {base**_DIGITS} keys can be told apart")
        codes = np.zeros((length, 1, shape.head_dim))
        for digit in range(_DIGITS):
            values = np.arange(length) // base**digit % base
            codes[np.arange(length), 0, digit * base + values] = _CODE
        rng = np.random.default_rng([seed, length])
        v = rng.standard_normal((length, shape.kv_heads, shape.head_dim))
        q, k = codes.repeat(shape.heads, 1), codes.repeat(shape.kv_heads, 1)
        return cls(*(array.astype(shape.storage) for array in (q, k, v)))

    def __len__(self) -> int:
        return len(self.k)

    def first(self, length: int) -> Tokens:
        """The leading tokens."""
        return Tokens(self.q[:length], self.k[:length], self.v[:length])


@dataclass(frozen=True)
class Held:
    """A sequence, the blocks that hold it, and how much of it lies there before this step."""

    tokens: Tokens
    blocks: tuple[int, ...]
    past: int = 0

    def upto(self, length: int, past: int) -> Held:
        """An earlier state: the leading tokens only."""
        return Held(self.tokens.first(length), self.blocks, past)

    def moved(self, blocks: Sequence[int]) -> Held:
        """The same sequence in other blocks."""
        return replace(self, blocks=tuple(blocks))


def step_batch(
    shape: CacheShape, held: Sequence[Held], *, padded_tokens: int = 0, padded_seqs: int = 0
) -> StepBatch:
    """A step that computes the tokens of each sequence from ``past`` on; without buckets."""
    case = PagedCase(
        tuple((each.past, len(each.tokens) - each.past) for each in held),
        block_size=shape.block_size,
        padded_tokens=padded_tokens,
        padded_seqs=padded_seqs,
    )
    blocks = [np.array(each.blocks, np.int32) for each in held]
    return Layout(case, blocks, [0] * len(held), 0).batch()


class ManualCache:
    """A cache of ``num_blocks`` blocks that a check fills and reads."""

    def __init__(
        self, subject: Subject, shape: CacheShape, num_blocks: int, *, poison: float | None = None
    ) -> None:
        """Every slot, of block 0 too, holds ``poison``: the shape's own if None."""
        self.subject = subject
        self.shape = shape
        self.num_blocks = num_blocks
        filled = (num_blocks, shape.block_size, shape.kv_heads, shape.head_dim)
        poison = shape.poison if poison is None else poison
        blocks = np.full(filled, poison, shape.storage)
        self.cache: Cache = fill_cache(subject, shape.spec, blocks, blocks)

    def write(self, *held: Held, **padding: int) -> None:
        """Store the tokens of each sequence from ``past`` on; what pads them is NaN."""
        batch = self._batch(held, padding)
        self.write_with(self._plan(batch), held, len(batch.token_ids))

    def write_with(self, plan: Any, held: Sequence[Held], num_rows: int) -> None:
        """The same with a plan that was made elsewhere."""
        k, v = self._put(held, "k", num_rows), self._put(held, "v", num_rows)
        self.cache = self.subject.ops.write_kv(self.cache, k, v, plan)

    def read(self, *held: Held, **padding: int) -> list[Floats]:
        """What attention gives for the tokens of each sequence from ``past`` on."""
        batch = self._batch(held, padding)
        return self.read_with(self._plan(batch), held, len(batch.token_ids))

    def read_with(self, plan: Any, held: Sequence[Held], num_rows: int) -> list[Floats]:
        """The same with a plan that was made elsewhere."""
        q = self._put(held, "q", num_rows)
        result = self.subject.ops.paged_attention(q, self.cache, plan, _PARAMS)
        return self._split(result, held)

    def attend(self, *held: Held, **padding: int) -> list[Floats]:
        """``write`` and ``read`` by the composite op."""
        batch = self._batch(held, padding)
        num_rows = len(batch.token_ids)
        q, k, v = (self._put(held, name, num_rows) for name in "qkv")
        result, self.cache = self.subject.ops.attend(
            q, k, v, self.cache, self._plan(batch), _PARAMS
        )
        return self._split(result, held)

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy blocks within this cache."""
        self.cache = self.subject.backend.copy_blocks(self.cache, self.cache, _as_pairs(pairs))

    def copy_to(self, target: Cache, pairs: Sequence[tuple[int, int]]) -> Cache:
        """Copy blocks from this cache; returns the new target."""
        return self.subject.backend.copy_blocks(self.cache, target, _as_pairs(pairs))

    def copy_from(self, source: Cache, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy blocks into this cache."""
        self.cache = self.subject.backend.copy_blocks(source, self.cache, _as_pairs(pairs))

    def make_host(self, num_blocks: int) -> Cache:
        """Swap space for this layer."""
        shape = self.shape
        return self.subject.backend.make_kv(shape.spec, num_blocks, shape.block_size, on_host=True)

    def _batch(self, held: Sequence[Held], padding: dict[str, int]) -> StepBatch:
        return self.subject.buckets.pad_batch(step_batch(self.shape, held, **padding))

    def _plan(self, batch: StepBatch) -> Any:
        (plan,) = placed_plans(self.subject.backend, batch, self.shape.block_size)
        return plan

    def _put(self, held: Sequence[Held], name: str, num_rows: int) -> Any:
        rows = np.concatenate([getattr(each.tokens, name)[each.past :] for each in held])
        return self.subject.put(pad_rows(rows, num_rows, np.nan))

    def _split(self, result: Any, held: Sequence[Held]) -> list[Floats]:
        ends = np.cumsum([len(each.tokens) - each.past for each in held])
        return np.split(np.asarray(self.subject.get(result))[: ends[-1]], ends[:-1])


def _as_pairs(pairs: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
    return np.array(pairs, np.int32).reshape(-1, 2)
