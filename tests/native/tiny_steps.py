"""A tiny model's forward pass, step after step, on sequences that grow as a test says."""

from __future__ import annotations

import numpy as np

from octavo.batch import GroupBatch, StepBatch
from octavo.kv import group_layers
from octavo.loading.dummy import DummySource
from octavo.loading.weights import CheckpointWeightLoader
from octavo.models.registry import build_model
from octavo.step import make_forward
from octavo.testing.tiny_models import TINY_MODELS, VOCAB_SIZE

_BLOCK_SIZE = 16
_BLOCKS_PER_SEQ = 8


class TinySteps:
    """``run(counts)`` computes so many new tokens of each sequence; all start empty."""

    def __init__(self, backend, name, dtype, *, ops=None, seed=0):
        config = TINY_MODELS[name].config
        self.backend = backend
        self.model = build_model(config)
        source = DummySource(config, seed)
        self.weights = self.model.load(CheckpointWeightLoader(source, backend, dtype))
        self.specs = self.model.kv_specs(dtype)
        groups = group_layers(self.specs)
        self.num_groups = len(groups)
        layer_groups = tuple(
            next(index for index, group in enumerate(groups) if layer in group.layers)
            for layer in range(len(self.specs))
        )
        self.step = make_forward(ops or backend.ops, self.model, layer_groups)
        self.reset()

    def reset(self):
        """Empty caches, and no tokens yet."""
        self.lengths = np.zeros(4, np.int32)
        num_blocks = 1 + len(self.lengths) * _BLOCKS_PER_SEQ
        self.caches = tuple(
            self.backend.make_kv(spec, num_blocks, _BLOCK_SIZE) for spec in self.specs
        )

    def run(self, counts):
        """float[sequences, vocab]: logits of each sequence's last token."""
        self.caches, logits = self.step(*self._inputs(counts))
        return self.backend.get(logits)

    def run_with(self, whole, counts, sampling):
        """What a step that samples returns of each sequence's last token."""
        self.caches, result, _ = whole(*self._inputs(counts), sampling, None)
        return result

    def _inputs(self, counts):
        batch = self._batch(np.array(counts, np.int32))
        plans = tuple(self.backend.plan(batch, _BLOCK_SIZE))
        return self.weights, self.caches, batch.map(self.backend.put), plans

    def _batch(self, counts):
        starts = self.lengths[: len(counts)].copy()
        self.lengths[: len(counts)] += counts
        token_seqs = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        query_start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        positions = np.arange(len(token_seqs)) - query_start[token_seqs] + starts[token_seqs]
        blocks = 1 + np.arange(len(counts) * _BLOCKS_PER_SEQ).reshape(len(counts), -1)
        slots = blocks[token_seqs, positions // _BLOCK_SIZE] * _BLOCK_SIZE + positions % _BLOCK_SIZE
        group = GroupBatch(blocks.astype(np.int32), slots.astype(np.int32))
        return StepBatch(
            token_ids=((positions * 31 + token_seqs * 17 + 5) % VOCAB_SIZE).astype(np.int32),
            positions=positions.astype(np.int32),
            token_seqs=token_seqs,
            query_start=query_start,
            seq_lens=starts + counts,
            context_lens=(positions + 1).astype(np.int32),
            logits_rows=query_start[1:] - 1,
            groups=(group,) * self.num_groups,
        )
