"""Backends whose answers depend on how the engine came to them, mostly in the last bits only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from op_mutants import OpMutants
from plain_backend import PlainBackend, PlainOps

MUTANTS = OpMutants("invariance")


class SplitOps(PlainOps):
    """Attention over the keys in two halves, merged: the same but for the last bits."""

    is_split = False  # of the token at hand

    def attend_token(self, q, k, v, params, sinks):
        if not self.is_split or len(k) < 2 or sinks is not None:
            return super().attend_token(q, k, v, params, sinks)
        half = len(k) // 2
        parts = [self.part(q, k[rows], v[rows], params) for rows in np.s_[:half, half:]]
        top = np.maximum(parts[0][0], parts[1][0])
        total = sum(np.exp(own - top) * weight for own, weight, _ in parts)
        summed = sum(np.exp(own - top)[:, None] * weighted for own, _, weighted in parts)
        return summed / total[:, None]

    def part(self, q, k, v, params):
        """(maximum, total of weights, weighted values) of each head."""
        kv_heads = self.kv_heads_of(len(q), k.shape[1])
        scores = (q[None] * k[:, kv_heads]).sum(axis=-1) * np.float32(params.scale)
        if params.soft_cap is not None:
            scores = params.soft_cap * np.tanh(scores / params.soft_cap)
        top = scores.max(axis=0)
        weights = np.exp(scores - top)
        return top, weights.sum(axis=0), (weights[..., None] * v[:, kv_heads]).sum(axis=0)


class SplitSequencesOps(SplitOps):
    """Splits the keys of some sequences of a step, and not of others."""

    def paged_attention(self, q, cache, plan, params, sinks=None):
        positions = np.append(plan.positions, 0)  # an empty sequence may start after the last
        self.splits = [
            self.is_sequence_split(positions[start], end - start, cache.block_size)
            for start, end in zip(plan.query_start[:-1], plan.query_start[1:], strict=True)
        ]
        self.token_seqs = iter(plan.token_seqs)
        return super().paged_attention(q, cache, plan, params, sinks)

    def visible(self, position, seq_len, params, block_size):
        self.is_split = self.splits[next(self.token_seqs)]
        return super().visible(position, seq_len, params, block_size)


CLAIM = "The claim caps.batch_invariant is false: to the last bit"


@MUTANTS.caught_by("batch", f"{CLAIM}.*in a batch of 5 than alone")
class SplitByTableWidth(SplitOps):
    """Splits the keys of every sequence where the longest has more than 8 blocks."""

    def paged_attention(self, q, cache, plan, params, sinks=None):
        self.is_split = plan.block_table.shape[1] > 8
        return super().paged_attention(q, cache, plan, params, sinks)


@MUTANTS.caught_by("batch", f"{CLAIM}.*in a batch of 5 than alone")
class SplitsByNumberOfSequences(SplitOps):
    """With four sequences or more, the keys of each are split to fill the device."""

    def paged_attention(self, q, cache, plan, params, sinks=None):
        self.is_split = np.count_nonzero(plan.seq_lens) >= 4
        return super().paged_attention(q, cache, plan, params, sinks)


@MUTANTS.caught_by("batch", f"{CLAIM}.*request", only=False)
class OneMatrixProduct(PlainOps):
    """A library multiplies all rows at once, by another kernel for each number of rows."""

    def linear(self, x, weight):
        product = x.astype(np.float32) @ weight.weight.T
        return (product if weight.bias is None else product + weight.bias).astype(x.dtype)


@MUTANTS.caught_by("chunks", f"{CLAIM}.*in chunks of 3 tokens than at once")
class AlignedChunksAreQuicker(SplitSequencesOps):
    """A chunk of a prompt that starts within a block is computed by another kernel."""

    def is_sequence_split(self, first_position, num_queries, block_size):
        return num_queries > 1 and first_position % block_size > 0


@MUTANTS.caught_by("prefix", "another answer when it shares its first blocks with a request")
class SharedPrefixKernel(PlainOps):
    """Sequences that share a block are computed together, each with the queries of the first."""

    def paged_attention(self, q, cache, plan, params, sinks=None):
        out = super().paged_attention(q, cache, plan, params, sinks)
        counts = np.diff(plan.query_start)
        leaders = {}
        for seq in np.flatnonzero(plan.seq_lens):
            leader = leaders.setdefault(int(plan.block_table[seq, 0]), seq)
            start, end = plan.query_start[seq : seq + 2]
            out[start + counts[leader] : end] = 0
        return out


@MUTANTS.caught_by("preemption", f"{CLAIM}.*when preempted and recomputed than uninterrupted")
class LongPromptsAreSplit(SplitSequencesOps):
    """From 17 tokens of one sequence on, a step splits the keys of each of them."""

    def is_sequence_split(self, first_position, num_queries, block_size):
        return num_queries > 16


@MUTANTS.caught_by("forks", "as the first of three than as the only one")
class CopiesOnce(PlainBackend):
    """Pairs that were copied last need not be copied again, though the layer is another."""

    last_pairs = b""

    def copy_blocks(self, src, dst, pairs):
        repeated = src is dst and len(pairs) and self.last_pairs == pairs.tobytes()
        self.last_pairs = pairs.tobytes()
        return dst if repeated else super().copy_blocks(src, dst, pairs)


@MUTANTS.caught_by("forks", "nothing tells their draws apart", only=False)
class OneUniform(PlainOps):
    """Every row is drawn with the first row's uniform."""

    def sample(self, logits, sampling):
        first = np.resize(sampling.uniform[:1], sampling.uniform.shape)
        return super().sample(logits, replace(sampling, uniform=first))
