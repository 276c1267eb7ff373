"""Ragged paged attention on a TPU: prefill chunks and decodes of a step in one launch.

Each program serves up to ``tile_tokens`` consecutive queries of one sequence (see work.py). It
walks the sequence's blocks in chunks: while one is computed, the next is copied from the cache,
also when it is the first of the next program. Softmax is online, in float32. The query heads of a
key head stand side by side as rows, ``group * tile_tokens`` of them (``group`` for a decode), so
that keys are read once for all.

What is not of the sequence may hold anything, NaN too: values are set to zero and scores masked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from octavo.api import AttentionParams
from octavo_tpu.kernels import work
from octavo_tpu.kernels.layout import LANES, KVLayout
from octavo_tpu.kernels.numbers import from_words

__all__ = ["Ragged", "Refs"]

_UNROLLED_BUNDLES = 2  # one's matrix products run beside the other's softmax
_MASKED_SCORE = -1e30  # finite: a row that sees no key yet gives no NaN


class Refs(NamedTuple):
    """What the kernel reads, writes and works in."""

    items: Any  # scalar memory, i32[items * work.FIELDS]
    table: Any  # scalar memory, i32[seqs * table_blocks]
    q: Any  # device memory, f32[tokens * head_rows, LANES]; also the output
    cache: Any  # device memory, [num_blocks, block_size * rows, LANES]
    scales: Any  # device memory, f32[num_blocks, scale_rows, block_size]; None if not int8
    sinks: Any  # f32[heads, LANES], alike in all lanes; or None
    out: Any  # device memory, the same as q
    queries: Any  # f32[2, tile_tokens * head_rows, LANES]: of this program and the next
    outputs: Any  # f32[2, tile_tokens * head_rows, LANES]: of this program and the one before
    chunks: Any  # [2, chunk_tokens * rows, LANES]: being computed, and being copied
    chunk_scales: Any  # f32[2, scale_rows, chunk_tokens], or None
    words: Any  # u32[chunk_tokens * words, LANES]: the chunk that is computed
    grouped: Any  # f32[kv_heads, group * tile_tokens, width]: queries by key head
    maximum: Any  # f32[kv_heads, group * tile_tokens, LANES], alike in all lanes
    denominator: Any  # the same
    weighted: Any  # f32[kv_heads, group * tile_tokens, width]
    query_sem: Any  # one for each half of ``queries``
    output_sem: Any
    chunk_sem: Any


@dataclass(frozen=True)
class Ragged:
    """What is static: the kernel is ``program``."""

    layout: KVLayout
    params: AttentionParams
    heads: int
    head_rows: int  # rows of a token's query, ``layout.parts`` for each head: a multiple of 8
    block_size: int
    table_blocks: int
    tile_tokens: int  # a power of two
    chunk_blocks: int
    compute_dtype: str  # of the matrix products' operands

    @property
    def group(self) -> int:
        """Query heads of one key head."""
        return self.heads // self.layout.kv_heads

    @property
    def halves(self) -> int:
        """Chunks that have room at once: one is computed while the other is copied."""
        return 2

    @property
    def chunk_tokens(self) -> int:
        """Keys that are computed at once."""
        return self.chunk_blocks * self.block_size

    def program(self, refs: Refs) -> None:
        """One item of the work list."""
        item, last = pl.program_id(0), pl.num_programs(0) - 1
        tokens = self._field(refs, item, work.TOKENS)
        pl.when(item == 0)(lambda: self._each_query(refs, item, _start))
        pl.when(item < last)(lambda: self._each_query(refs, item + 1, _start))
        self._each_query(refs, item, _wait)
        # The output before the last has this one's place.
        pl.when(item > 1)(lambda: self._each_output(refs, item - 2, _wait))
        pl.when(tokens == 1)(lambda: self._attend(refs, item, 1))
        if self.tile_tokens > 1:
            pl.when(tokens > 1)(lambda: self._attend(refs, item, self.tile_tokens))
        self._each_output(refs, item, _start)

        @pl.when(item == last)
        def _finish() -> None:
            pl.when(item > 0)(lambda: self._each_output(refs, item - 1, _wait))
            self._each_output(refs, item, _wait)

    def _field(self, refs: Refs, item: Any, field: int) -> Any:
        return refs.items[item * work.FIELDS + field]

    def _each_query(self, refs: Refs, item: Any, act: Callable[[Any], None]) -> None:
        self._each_piece(refs, item, act, refs.q, refs.queries, refs.query_sem)

    def _each_output(self, refs: Refs, item: Any, act: Callable[[Any], None]) -> None:
        self._each_piece(refs, item, act, refs.out, refs.outputs, refs.output_sem)

    def _each_piece(
        self, refs: Refs, item: Any, act: Callable[[Any], None], stored: Any, buffer: Any, sem: Any
    ) -> None:
        """Copies of an item's rows, exactly: a copy's size is static, so one for each power of 2.

        The rows of queries are read and those of outputs are written.
        """
        tokens, start = self._field(refs, item, work.TOKENS), self._field(refs, item, work.START)
        half = lax.rem(item, 2)
        size = self.tile_tokens
        while size:

            @pl.when((tokens & size) != 0)
            def _copy(size: int = size) -> None:
                offset = tokens & ~(2 * size - 1)
                outside = stored.at[self._rows(start + offset, size)]
                inside = buffer.at[half, self._rows(offset, size)]
                source, target = (inside, outside) if stored is refs.out else (outside, inside)
                act(pltpu.make_async_copy(source, target, sem.at[half]))

            size //= 2

    def _rows(self, token: Any, tokens: int) -> Any:
        first = pl.multiple_of(token * self.head_rows, self.head_rows)
        return pl.ds(first, tokens * self.head_rows)

    def _each_block(self, refs: Refs, item: Any, chunk: Any, act: Callable[[Any], None]) -> None:
        """Copies of a chunk's blocks out of the cache; none of what lies behind the last key."""
        seq = self._field(refs, item, work.SEQ)
        end_key = self._field(refs, item, work.END_KEY)
        first = self._field(refs, item, work.FIRST_BLOCK) + chunk * self.chunk_blocks
        half = lax.rem(self._field(refs, item, work.FIRST_CHUNK) + chunk, self.halves)
        rows = self.block_size * self.layout.rows
        for place in range(self.chunk_blocks):

            @pl.when((first + place) * self.block_size < end_key)
            def _copy(place: int = place) -> None:
                block = refs.table[seq * self.table_blocks + first + place]
                target = refs.chunks.at[half, pl.ds(place * rows, rows)]
                act(pltpu.make_async_copy(refs.cache.at[block], target, refs.chunk_sem.at[half]))
                if refs.scales is not None:
                    lanes = pl.ds(place * self.block_size, self.block_size)
                    target = refs.chunk_scales.at[half, :, lanes]
                    act(
                        pltpu.make_async_copy(
                            refs.scales.at[block], target, refs.chunk_sem.at[half]
                        )
                    )

    def _attend(self, refs: Refs, item: Any, queries: int) -> None:
        """Attention of one item; ``queries`` is 1, or the tile."""
        chunks = self._field(refs, item, work.CHUNKS)
        before = self._field(refs, item - jnp.minimum(item, 1), work.CHUNKS)
        is_waiting = (chunks > 0) & ((item == 0) | (before == 0))
        pl.when(is_waiting)(lambda: self._each_block(refs, item, 0, _start))
        self._begin(refs, item, queries)

        def compute(chunk: Any, carry: None) -> None:
            self._start_next(refs, item, chunk, chunks)
            self._each_block(refs, item, chunk, _wait)
            self._extend(refs, item, chunk, queries)
            return carry

        lax.fori_loop(0, chunks, compute, None)
        self._end(refs, item, queries)

    def _start_next(self, refs: Refs, item: Any, chunk: Any, chunks: Any) -> None:
        """Start what is computed after this chunk, be it of this item or of the next."""
        pl.when(chunk + 1 < chunks)(lambda: self._each_block(refs, item, chunk + 1, _start))

        @pl.when((chunk + 1 == chunks) & (item + 1 < pl.num_programs(0)))
        def _next_item() -> None:
            has_keys = self._field(refs, item + 1, work.CHUNKS) > 0
            pl.when(has_keys)(lambda: self._each_block(refs, item + 1, 0, _start))

    def _places(self, head: int, queries: int) -> list[tuple[Any, Any, Any]]:
        """(rows of a token-major buffer, rows and lanes of a key head's) of the same numbers."""
        parts = self.layout.parts
        places = []
        for part in range(parts):
            lanes, first = pl.ds(part * LANES, LANES), head * self.group * parts + part
            if queries == 1:
                outer = pl.ds(first, self.group, stride=parts)
                places.append((outer, pl.ds(0, self.group), lanes))
                continue
            for member in range(self.group):
                outer = pl.ds(first + member * parts, queries, stride=self.head_rows)
                places.append((outer, pl.ds(member * queries, queries), lanes))
        return places

    def _begin(self, refs: Refs, item: Any, queries: int) -> None:
        """Group the queries; no key has been seen, or the sink alone, whose value is 0."""
        half, rows = lax.rem(item, 2), self.group * queries
        for head in range(self.layout.kv_heads):
            for outer, inner, lanes in self._places(head, queries):
                refs.grouped[head, inner, lanes] = refs.queries[half, outer, :]
            refs.weighted[head, :rows, :] = jnp.zeros((rows, self.layout.width), jnp.float32)
            if refs.sinks is None:
                refs.maximum[head, :rows, :] = jnp.full((rows, LANES), _MASKED_SCORE, jnp.float32)
                refs.denominator[head, :rows, :] = jnp.zeros((rows, LANES), jnp.float32)
                continue
            first = head * self.group
            for member in range(self.group):
                sink = refs.sinks[first + member : first + member + 1, :]
                inner = pl.ds(member * queries, queries)
                refs.maximum[head, inner, :] = jnp.broadcast_to(sink, (queries, LANES))
            refs.denominator[head, :rows, :] = jnp.ones((rows, LANES), jnp.float32)

    def _extend(self, refs: Refs, item: Any, chunk: Any, queries: int) -> None:
        """All heads of a chunk that has arrived."""
        half = lax.rem(self._field(refs, item, work.FIRST_CHUNK) + chunk, self.halves)
        first_block = self._field(refs, item, work.FIRST_BLOCK) + chunk * self.chunk_blocks
        first_key = first_block * self.block_size
        position = self._field(refs, item, work.POSITION)
        end_key = self._field(refs, item, work.END_KEY)
        visible = self._visible(position, first_key, end_key, queries)
        key = lax.broadcasted_iota(jnp.int32, (self.chunk_tokens, self.layout.width), 0)
        has_value = first_key + key < end_key
        refs.words[...] = pltpu.bitcast(refs.chunks[half], jnp.uint32)
        bundle = self.layout.heads_per_bundle
        bundles = self.layout.kv_heads // bundle

        def extend_bundle(number: Any, carry: None) -> None:
            self._extend_heads(refs, half, number, bundle, queries, visible, has_value)
            return carry

        # A loop: unrolled over all heads, the code of each layer would be megabytes.
        lax.fori_loop(0, bundles, extend_bundle, None, unroll=min(_UNROLLED_BUNDLES, bundles))
        rest = self.layout.kv_heads - bundles * bundle
        if rest:
            self._extend_heads(refs, half, bundles, rest, queries, visible, has_value)

    def _extend_heads(
        self,
        refs: Refs,
        half: Any,
        bundle: Any,
        heads: int,
        queries: int,
        visible: Any,
        has_value: Any,
    ) -> None:
        """The first ``heads`` key heads of a bundle, which share its words."""
        first_word = bundle * self.layout.words_per_bundle
        loaded: dict[int, Any] = {}
        for place in range(heads):
            head = bundle * self.layout.heads_per_bundle + place
            k = self._load(refs, first_word, self.layout.key_rows(place), loaded)
            v = self._load(refs, first_word, self.layout.value_rows(place), loaded)
            v = jnp.where(has_value, v, 0.0).astype(self.compute_dtype)
            scales = None
            if refs.scales is not None:
                scales = [refs.chunk_scales[half, pl.ds(2 * head + side, 1), :] for side in (0, 1)]
            rows = self.group * queries
            self._extend_head(refs, head, rows, k.astype(self.compute_dtype), v, scales, visible)

    def _load(
        self, refs: Refs, first_word: Any, rows: tuple[int, ...], loaded: dict[int, Any]
    ) -> Any:
        """float32[chunk_tokens, width] of rows of each token; ``loaded`` keeps words by place."""
        parts = []
        for row in rows:
            word, part = divmod(row, self.layout.rows_per_word)
            if word not in loaded:
                every = pl.ds(first_word + word, self.chunk_tokens, stride=self.layout.words)
                loaded[word] = refs.words[every, :]
            parts.append(from_words(loaded[word], part, self.layout.dtype))
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)

    def _visible(self, position: Any, first_key: Any, end_key: Any, queries: int) -> Any:
        """bool[rows, chunk_tokens]: which keys the query of a row sees."""
        shape = (self.group * queries, self.chunk_tokens)
        key = first_key + lax.broadcasted_iota(jnp.int32, shape, 1)
        query = position + (lax.broadcasted_iota(jnp.int32, shape, 0) & (queries - 1))
        if queries == 1:
            query = position
        visible = key < end_key
        if self.params.causal:
            visible &= key <= query
        if self.params.window is not None:
            visible &= key > query - self.params.window
            if not self.params.causal:
                visible &= key < query + self.params.window
        return visible

    def _extend_head(
        self, refs: Refs, head: Any, rows: int, k: Any, v: Any, scales: Any, visible: Any
    ) -> None:
        """The running softmax of one key head's queries after this chunk."""
        q = refs.grouped[head, :rows, :].astype(self.compute_dtype)
        scores = self._matmul(q, k, 1) * self.params.scale
        if scales is not None:
            scores *= scales[0]
        if self.params.soft_cap is not None:
            scores = self.params.soft_cap * jnp.tanh(scores / self.params.soft_cap)
        scores = jnp.where(visible, scores, _MASKED_SCORE)
        before = refs.maximum[head, :rows, :]
        maximum = jnp.maximum(before, jnp.max(scores, axis=1, keepdims=True))
        weights = jnp.where(visible, jnp.exp(scores - maximum[:, :1]), 0.0)
        fade = jnp.exp(before - maximum)
        total = jnp.sum(weights, axis=1, keepdims=True)
        refs.maximum[head, :rows, :] = maximum
        refs.denominator[head, :rows, :] = refs.denominator[head, :rows, :] * fade + total
        if scales is not None:
            weights = jnp.where(visible, weights * scales[1], 0.0)
        added = self._matmul(weights.astype(self.compute_dtype), v, 0)
        refs.weighted[head, :rows, :] = refs.weighted[head, :rows, :] * fade[:, :1] + added

    def _matmul(self, a: Any, b: Any, contracted: int) -> Any:
        """``a @ b`` in float32, over axis 1 of a and ``contracted`` of b."""
        exact = self.compute_dtype == "float32"
        return lax.dot_general(
            a,
            b,
            (((1,), (contracted,)), ((), ())),
            precision=lax.Precision.HIGHEST if exact else lax.Precision.DEFAULT,
            preferred_element_type=jnp.float32,
        )

    def _end(self, refs: Refs, item: Any, queries: int) -> None:
        """Divide, and lay the heads of a token side by side again."""
        half, rows = lax.rem(item, 2), self.group * queries
        for head in range(self.layout.kv_heads):
            denominator = refs.denominator[head, :rows, :1]
            # No key at all: zero by one.
            denominator = jnp.where(denominator > 0, denominator, 1.0)
            refs.weighted[head, :rows, :] = refs.weighted[head, :rows, :] / denominator
            for outer, inner, lanes in self._places(head, queries):
                refs.outputs[half, outer, :] = refs.weighted[head, inner, lanes]


def _start(copy: Any) -> None:
    copy.start()


def _wait(copy: Any) -> None:
    copy.wait()
