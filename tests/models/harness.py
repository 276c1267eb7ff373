"""Drives a model by hand, without engine or scheduler: batches, block tables, caches, greedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import array_api_compat.numpy as numpy_namespace
import numpy as np

from octavo.backend import Capabilities
from octavo.batch import GroupBatch, StepBatch
from octavo.kv import group_layers
from octavo.ops.attention import make_plans
from octavo.ops.portable import PortableOps
from octavo.ops.storage import PortableCache, PortableLinear


@dataclass(frozen=True)
class TinyBackend:
    """The few members of a backend that models and their loader need, over any namespace."""

    xp: Any = numpy_namespace
    to_device: Callable[[Any], Any] = np.asarray
    quantization: tuple[str, ...] = ()

    @property
    def caps(self):
        return Capabilities(("float32",), ("float32",), quantization=self.quantization)

    @property
    def ops(self):
        return PortableOps(self.xp)

    def put(self, array, dtype=None):
        if dtype is not None:
            array = array.astype(dtype)
        return self.to_device(np.ascontiguousarray(array))

    def put_linear(self, weight, bias, _dtype):
        if isinstance(weight, np.ndarray):
            weight = self.put(weight)
        return PortableLinear(weight, None if bias is None else self.put(bias))

    def make_kv(self, spec, num_blocks, block_size):
        """Poisoned: whoever reads a slot that nobody wrote gets NaN."""
        shape = (num_blocks, block_size, spec.num_kv_heads, spec.head_dim)
        return PortableCache(*(self.put(np.full(shape, np.nan, np.float32)) for _ in "kv"))


@dataclass
class Request:
    """A request: its tokens so far, and a shuffled block table for each KV group."""

    prompt_len: int
    tokens: list[int]
    tables: list[list[int]]
    num_computed: int = 0


@dataclass
class Driver:
    """Runs sequences through a loaded model, any mixture of chunks in one step."""

    model: Any
    weights: Any
    backend: TinyBackend = field(default_factory=TinyBackend)
    block_size: int = 8
    num_blocks: int = 40
    compile: Callable[[Any], Any] = lambda step: step

    def __post_init__(self):
        specs = self.model.kv_specs("float32")
        self.groups = group_layers(specs)
        self.layer_group = {
            layer: index for index, group in enumerate(self.groups) for layer in group.layers
        }
        self.caches = tuple(
            self.backend.make_kv(spec, self.num_blocks, self.block_size) for spec in specs
        )
        shuffled = np.random.default_rng(0).permutation(np.arange(1, self.num_blocks))
        self.free = [list(map(int, shuffled)) for _ in self.groups]
        self.step = self.compile(self._step)

    def _step(self, weights, caches, batch, plans):
        ops = self.backend.ops
        layer_plans = tuple(plans[self.layer_group[layer]] for layer in range(len(caches)))
        hidden, caches = self.model.forward(ops, weights, caches, batch, layer_plans)
        rows = ops.take_rows(hidden, batch.logits_rows)
        return self.model.logits(ops, weights, rows), caches

    def start(self, prompt: Sequence[int]) -> Request:
        return Request(len(prompt), list(prompt), [[] for _ in self.groups])

    def run(self, *chunks: tuple[Request, int]) -> list[np.ndarray]:
        """Compute the next tokens of each sequence in one step: logits [chunk, vocab] of each."""
        batch = self._batch(chunks)
        plans = make_plans(batch, self.backend.to_device)
        logits, self.caches = self.step(
            self.weights, self.caches, batch.map(self.backend.to_device), plans
        )
        for sequence, num_tokens in chunks:
            sequence.num_computed += num_tokens
        ends = np.cumsum([num_tokens for _, num_tokens in chunks])
        return np.split(np.asarray(logits), ends[:-1])

    def prefill(self, sequence: Request, *chunk_sizes: int) -> np.ndarray:
        """Logits of all tokens not computed yet, in chunks; the last chunk takes the rest."""
        sizes = [*chunk_sizes, len(sequence.tokens) - sequence.num_computed - sum(chunk_sizes)]
        return np.concatenate([self.run((sequence, size))[0] for size in sizes])

    def generate(self, sequence: Request, last_logits: np.ndarray, num_tokens: int) -> list[int]:
        """Greedy continuation; ``last_logits`` are those of the last prompt token."""
        for _ in range(num_tokens - 1):
            sequence.tokens.append(int(last_logits.argmax()))
            last_logits = self.run((sequence, 1))[0][-1]
        sequence.tokens.append(int(last_logits.argmax()))
        return sequence.tokens[sequence.prompt_len :]

    def _batch(self, chunks: Sequence[tuple[Request, int]]) -> StepBatch:
        token_ids, positions, token_seqs, context_lens, seq_lens = [], [], [], [], []
        for index, (sequence, num_tokens) in enumerate(chunks):
            end = sequence.num_computed + num_tokens
            assert end <= len(sequence.tokens)
            span = range(sequence.num_computed, end)
            token_ids += sequence.tokens[span.start : end]
            positions += span
            token_seqs += [index] * num_tokens
            context_lens += [max(position + 1, sequence.prompt_len) for position in span]
            seq_lens.append(end)
        num_tokens_per_seq = [num_tokens for _, num_tokens in chunks]
        i32 = lambda values: np.array(values, np.int32)  # noqa: E731
        return StepBatch(
            token_ids=i32(token_ids),
            positions=i32(positions),
            token_seqs=i32(token_seqs),
            query_start=i32(np.cumsum([0, *num_tokens_per_seq])),
            seq_lens=i32(seq_lens),
            context_lens=i32(context_lens),
            logits_rows=np.arange(len(token_ids), dtype=np.int32),
            groups=tuple(
                self._group_batch(
                    index, [sequence for sequence, _ in chunks], positions, token_seqs
                )
                for index in range(len(self.groups))
            ),
        )

    def _group_batch(self, group, sequences, positions, token_seqs) -> GroupBatch:
        """Block tables of one KV group; what lies behind a window points to block 0."""
        for sequence in sequences:
            while len(sequence.tables[group]) * self.block_size < len(sequence.tokens):
                sequence.tables[group].append(self.free[group].pop())
        table = np.zeros((len(sequences), self.num_blocks), np.int32)
        for row, sequence in enumerate(sequences):
            table[row, : len(sequence.tables[group])] = sequence.tables[group]
        slots = [
            table[seq, position // self.block_size] * self.block_size + position % self.block_size
            for position, seq in zip(positions, token_seqs, strict=True)
        ]
        window = self.groups[group].spec.window
        if window is not None:
            for row, sequence in enumerate(sequences):
                first_visible = max(0, sequence.num_computed + 1 - window)
                table[row, : first_visible // self.block_size] = 0
        return GroupBatch(table, np.array(slots, np.int32))
