"""Backends with attention wrong: bugs of masks, blocks, heads and sums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from op_mutants import OpMutants, float32
from plain_backend import PlainOps, dtype_named

MUTANTS = OpMutants()


@MUTANTS.caught_by("paged_attention", "paged_attention is wrong.*at token 0 of 7")
class OneSplit(PlainOps):
    """The keys are split into parts of 1024, and only the last part is kept."""

    def visible(self, position, seq_len, params, block_size):
        seen = super().visible(position, seq_len, params, block_size)
        return seen[len(seen) // 1024 * 1024 :] if len(seen) > 1024 else seen


@MUTANTS.caught_by("paged_attention", "paged_attention is wrong")
class RoomForSixteenSplits(PlainOps):
    """Sixteen splits of 256 keys can be merged; further ones write past them, and are not read."""

    def visible(self, position, seq_len, params, block_size):
        return super().visible(position, seq_len, params, block_size)[:4096]


@MUTANTS.caught_by("paged_attention", "paged_attention is wrong")
class SixteenBitBlocks(PlainOps):
    """Block tables travel as 16-bit integers."""

    def slots_to_read(self, blocks, positions, block_size):
        return super().slots_to_read(blocks & 0x7FFF, positions, block_size)


@MUTANTS.caught_by("sinks", "paged_attention is wrong")
class FirstLayersSinks(PlainOps):
    """A kernel is built with the sinks of the first layer, and serves all."""

    def paged_attention(self, q, cache, plan, params, sinks=None):
        if sinks is not None:
            built_for = self.__dict__.setdefault("built_for", {})
            sinks = built_for.setdefault((len(sinks), sinks.dtype), sinks)
        return super().paged_attention(q, cache, plan, params, sinks)


@MUTANTS.caught_by(
    "paged_attention", "as if the last block were not read where it is partly filled", only=False
)
class LastBlockUnread(PlainOps):
    """Counts blocks as length // size, which is one too few except on an edge."""

    def visible(self, position, seq_len, params, block_size):
        seen = super().visible(position, seq_len, params, block_size)
        return seen[seen < max(seq_len // block_size, 1) * block_size]


@MUTANTS.caught_by(
    "block_edges", "as if the last block were not read where a sequence ends on its edge"
)
class WrongEdgeOfLargeBlocks(PlainOps):
    """The last of the blocks of 64 is not read if it is full."""

    def visible(self, position, seq_len, params, block_size):
        seen = super().visible(position, seq_len, params, block_size)
        if block_size == 64 and seq_len % block_size == 0:
            seen = seen[seen < seq_len - block_size]
        return seen


@MUTANTS.caught_by("head_groups", "(?s)paged_attention is wrong.*ops.paged_attention")
class PowerOfTwoGroups(PlainOps):
    """Query heads are dealt out eight at a time."""

    def kv_heads_of(self, num_heads, num_kv_heads):
        return np.arange(num_heads) // min(num_heads // num_kv_heads, 8) % num_kv_heads


@MUTANTS.caught_by("head_groups", "as if query head h read KV head h % kv_heads", only=False)
class InterleavedHeads(PlainOps):
    """Query head h reads KV head h % kv_heads."""

    def kv_heads_of(self, num_heads, num_kv_heads):
        return np.arange(num_heads) % num_kv_heads


@MUTANTS.caught_by("head_sizes", "paged_attention is wrong")
class WholeVectors(PlainOps):
    """Vectors of 32 features: what is left of a head of 80 does not count."""

    def attend_token(self, q, k, v, params, sinks):
        whole = q.shape[-1] // 32 * 32 or q.shape[-1]
        return super().attend_token(q * (np.arange(q.shape[-1]) < whole), k, v, params, sinks)


@MUTANTS.caught_by("paged_attention", "as if a query saw one key of the future", only=False)
class FutureKey(PlainOps):
    """The mask is one key too long."""

    def visible(self, position, seq_len, params, block_size):
        return super().visible(min(position + 1, seq_len - 1), seq_len, params, block_size)


@MUTANTS.caught_by("head_groups", "as if a query did not see its own key", only=False)
class OwnKeyUnseen(PlainOps):
    """The mask is one key too short."""

    def visible(self, position, seq_len, params, block_size):
        seen = super().visible(position, seq_len, params, block_size)
        return seen[seen != position] if position else seen


@MUTANTS.caught_by("sliding_window", "as if the window were one key too long", only=False)
class LongWindow(PlainOps):
    """A window holds one key more."""

    def visible(self, position, seq_len, params, block_size):
        if params.window is not None:
            params = replace(params, window=params.window + 1)
        return super().visible(position, seq_len, params, block_size)


@MUTANTS.caught_by(
    "sliding_window",
    "as if (the window were ignored|.* a slot were read that this sequence does not own)",
    only=False,
)
class NoWindow(PlainOps):
    """The window is ignored."""

    def visible(self, position, seq_len, params, block_size):
        return super().visible(position, seq_len, replace(params, window=None), block_size)


@MUTANTS.caught_by("sliding_window", "paged_attention is wrong")
class WindowOfOne(PlainOps):
    """A window of 1 is taken for none, as 0 and None are."""

    def visible(self, position, seq_len, params, block_size):
        if params.window == 1:
            params = replace(params, window=None)
        return super().visible(position, seq_len, params, block_size)


@MUTANTS.caught_by("attention_soft_cap", "as if the soft-cap were ignored")
class WholeCap(PlainOps):
    """The cap is an integer, as it is in every model so far; 0.5 is 0, and 0 is none."""

    def attend_token(self, q, k, v, params, sinks):
        if params.soft_cap is not None:
            params = replace(params, soft_cap=int(params.soft_cap) or None)
        return super().attend_token(q, k, v, params, sinks)


@MUTANTS.caught_by("attention_soft_cap", "paged_attention is wrong", only=False)
class ClippedScores(PlainOps):
    """Of scores far below the cap, as most are, this is right."""

    def attend_token(self, q, k, v, params, sinks):
        if params.soft_cap is None:
            return super().attend_token(q, k, v, params, sinks)
        heads = self.kv_heads_of(len(q), k.shape[1])
        scores = (q[None] * k[:, heads]).sum(axis=-1) * np.float32(params.scale)
        scores = np.clip(scores, -params.soft_cap, params.soft_cap)
        return self.weigh(scores, v[:, heads], sinks)

    def weigh(self, scores, v, sinks):
        weights = np.exp(scores)
        total = weights.sum(axis=0) + (0 if sinks is None else np.exp(float32(sinks)))
        return ((weights / total)[..., None] * v).sum(axis=0)


@MUTANTS.caught_by("attention_soft_cap", "as if the soft-cap were ignored", only=False)
class NoCap(PlainOps):
    """The soft-cap is ignored."""

    def attend_token(self, q, k, v, params, sinks):
        return super().attend_token(q, k, v, replace(params, soft_cap=None), sinks)


@MUTANTS.caught_by("attention_soft_cap", "paged_attention is wrong", only=False)
class CapAfterMask(ClippedScores):
    """Masked scores of minus infinity become -cap: what no query may see has weight again."""

    def attend_token(self, q, k, v, params, sinks):
        if params.soft_cap is None:
            return super().attend_token(q, k, v, params, sinks)
        heads = self.kv_heads_of(len(q), k.shape[1])
        scores = (q[None] * k[:, heads]).sum(axis=-1) * np.float32(params.scale)
        masked = np.full((2, len(q)), -np.inf, np.float32)
        scores = np.concatenate([scores, masked])
        scores = params.soft_cap * np.tanh(scores / params.soft_cap)
        return self.weigh(scores, np.pad(v[:, heads], ((0, 2), (0, 0), (0, 0))), sinks)


@MUTANTS.caught_by("sinks", "as if the sinks were read by KV head")
class SinksOfKVHeads(PlainOps):
    """Query heads of one KV head share its sink."""

    def attend_token(self, q, k, v, params, sinks):
        if sinks is not None:
            sinks = sinks[self.kv_heads_of(len(q), k.shape[1])]
        return super().attend_token(q, k, v, params, sinks)


@MUTANTS.caught_by("sinks", "as if the sinks were ignored", only=False)
class NoSinks(PlainOps):
    """The sinks are ignored."""

    def attend_token(self, q, k, v, params, sinks):
        return super().attend_token(q, k, v, params, None)


@MUTANTS.caught_by("non_causal", "as if causal=False were ignored")
class AlwaysCausal(PlainOps):
    """Causal=False is ignored."""

    def visible(self, position, seq_len, params, block_size):
        return super().visible(position, seq_len, replace(params, causal=True), block_size)


@MUTANTS.caught_by("large_scores", "paged_attention is wrong.*nan", only=False)
class PlainExp(PlainOps):
    """Exp is taken without subtracting the largest score."""

    def attend_token(self, q, k, v, params, sinks):
        if params.soft_cap is not None or sinks is not None:
            return super().attend_token(q, k, v, params, sinks)
        heads = self.kv_heads_of(len(q), k.shape[1])
        scores = (q[None] * k[:, heads]).sum(axis=-1) * np.float32(params.scale)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            weights = np.exp(scores - self.subtracted(scores))
            return ((weights / weights.sum(axis=0))[..., None] * v[:, heads]).sum(axis=0)

    def subtracted(self, scores):
        return 0


@MUTANTS.caught_by("large_scores", "paged_attention is wrong.*nan")
class MaximumFromZero(PlainExp):
    """The running maximum starts at 0, and so stays there if every score is below."""

    def subtracted(self, scores):
        return np.maximum(scores.max(axis=0), 0)


class NarrowWeighing(PlainOps):
    """Adds up weighted values in bfloat16, key by key."""

    def attend_token(self, q, k, v, params, sinks):
        if params.soft_cap is not None or sinks is not None:
            return super().attend_token(q, k, v, params, sinks)
        heads = self.kv_heads_of(len(q), k.shape[1])
        scores = (q[None] * k[:, heads]).sum(axis=-1) * np.float32(params.scale)
        weights = np.exp(scores - scores.max(axis=0))
        weights /= weights.sum(axis=0)
        total = np.zeros(q.shape, dtype_named("bfloat16"))
        for weight, value in zip(weights, v[:, heads], strict=True):
            total = total + (weight[:, None] * value).astype(total.dtype)
        return float32(total)


@MUTANTS.caught_by("attention_dtypes", "paged_attention is wrong")
class NarrowAttention(PlainOps):
    """Weighted values are added up in bfloat16."""

    def paged_attention(self, q, cache, plan, params, sinks=None):
        ops = NarrowWeighing() if q.dtype == dtype_named("bfloat16") else PlainOps()
        return ops.paged_attention(q, cache, plan, params, sinks)


@MUTANTS.caught_by("paged_attention", "as if keys and values were swapped", only=False)
class SwappedKV(PlainOps):
    """Keys are read as values and values as keys."""

    def read_keys(self, cache, slots):
        return super().read_values(cache, slots)

    def read_values(self, cache, slots):
        return super().read_keys(cache, slots)


@MUTANTS.caught_by("paged_attention", "as if the scale were applied twice", only=False)
class ScaledTwice(PlainOps):
    """The scale is applied to the query and to the score."""

    def attend_token(self, q, k, v, params, sinks):
        return super().attend_token(q * np.float32(params.scale), k, v, params, sinks)
