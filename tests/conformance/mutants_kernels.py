"""Backends whose attention has kernels of several kinds, of which one is wrong.

None claims that one check alone catches it, which would take a run of the whole suite for each.
"""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
from op_mutants import OpMutants, float32
from plain_backend import PlainBackend, PlainOps

MUTANTS = OpMutants()


class PlainKernels(PlainOps):
    """Tells ``attend_token`` what a kernel is chosen by."""

    def paged_attention(self, q, cache, plan, params, sinks=None):
        self.is_decode = len(q) == len(plan.seq_lens)
        self.num_seqs = len(plan.seq_lens)
        self.block_size, self.dtype = cache.block_size, q.dtype
        return super().paged_attention(q, cache, plan, params, sinks)


@MUTANTS.caught_by("paged_attention", "paged_attention is wrong", only=False)
class EmptySplit(PlainKernels):
    """Where the keys fill splits of 256, there is one split more, of nothing: 0 / 0."""

    def attend_token(self, q, k, v, params, sinks):
        result = super().attend_token(q, k, v, params, sinks)
        return result if len(k) % 256 else result * np.float32(np.nan)


@MUTANTS.caught_by("paged_attention", "paged_attention is wrong", only=False)
class LastTileOfOneKey(PlainKernels):
    """A last tile of a single key is taken for empty; tiles have 128."""

    def attend_token(self, q, k, v, params, sinks):
        seen = len(k) - (len(k) > 1 and len(k) % 128 == 1)
        return super().attend_token(q, k[:seen], v[:seen], params, sinks)


@MUTANTS.caught_by("paged_attention", "paged_attention is wrong", only=False, quick=False)
class GridOf512Sequences(PlainOps):
    """A launch serves 512 sequences, and there is but one."""

    def paged_attention(self, q, cache, plan, params, sinks=None):
        result = super().paged_attention(q, cache, plan, params, sinks)
        served = np.asarray(plan.token_seqs)[:, None, None] < 512
        return np.where(served, result, 0).astype(result.dtype)


@MUTANTS.caught_by("paged_attention", "paged_attention is wrong", only=False)
class DecodeBesideLongPrefill(PlainOps):
    """With a chunk of more than 256 tokens in the batch, decodes do not see their own key."""

    def paged_attention(self, q, cache, plan, params, sinks=None):
        result = super().paged_attention(q, cache, plan, params, sinks).copy()
        counts = np.diff(plan.query_start)
        if counts.max() > 256:
            for seq in np.flatnonzero((counts == 1) & (plan.seq_lens > 1)):
                token = slice(plan.query_start[seq], plan.query_start[seq] + 1)
                earlier = replace(
                    plan,
                    token_seqs=plan.token_seqs[token],
                    positions=plan.positions[token] - 1,
                )
                result[token] = super().paged_attention(q[token], cache, earlier, params, sinks)
        return result


@MUTANTS.caught_by("sliding_window", "paged_attention is wrong", only=False)
class LongWindowsInWholeBlocks(PlainOps):
    """Windows of several tiles start with a whole block: its keys are not masked one by one."""

    def visible(self, position, seq_len, params, block_size):
        seen = super().visible(position, seq_len, params, block_size)
        if params.window is None or params.window < 64:
            return seen
        return np.arange(seen[0] // block_size * block_size, seen[-1] + 1)


@MUTANTS.caught_by("sliding_window", "paged_attention is wrong", only=False)
class WindowOfTheLastQuery(PlainOps):
    """Skips what lies before the window of the last of 64 queries: the first ones lose keys."""

    def visible(self, position, seq_len, params, block_size):
        seen = super().visible(position, seq_len, params, block_size)
        if params.window is None or not params.causal or params.window < 64:
            return seen
        last = min(seq_len - 1, position // 64 * 64 + 63)
        return seen[(seen > last - params.window) | (seen == position)]


@MUTANTS.caught_by("head_groups", "paged_attention is wrong", only=False)
class GroupsInPowersOfTwo(PlainOps):
    """A tile has room for 8 queries of one KV head, and stands for 8 where there are 5 or 7."""

    def kv_heads_of(self, num_heads, num_kv_heads):
        size = num_heads // num_kv_heads
        return np.arange(num_heads) // (8 if size in (5, 7) else size)


@MUTANTS.caught_by("head_groups", "paged_attention is wrong", only=False)
class RoomFor128Heads(PlainOps):
    """Heads beyond 128 are not computed."""

    def attend_token(self, q, k, v, params, sinks):
        result = super().attend_token(q, k, v, params, sinks)
        result[128:] = 0
        return result


@MUTANTS.caught_by("head_sizes", "paged_attention is wrong", only=False)
class HeadsInSixteens(PlainOps):
    """The features of large heads are read sixteen at a time; the last eight of 72 are not."""

    def attend_token(self, q, k, v, params, sinks):
        result = super().attend_token(q, k, v, params, sinks)
        if result.shape[1] > 64:
            result[:, result.shape[1] // 16 * 16 :] = 0
        return result


@MUTANTS.caught_by("sinks", "paged_attention is wrong", only=False)
class SinkInEachSplit(PlainOps):
    """Each split of 128 keys adds the sink to its own denominator, and all are added up."""

    def attend_token(self, q, k, v, params, sinks):
        if sinks is not None:
            sinks = float32(sinks) + np.float32(np.log(-(-len(k) // 128)))
        return super().attend_token(q, k, v, params, sinks)


@MUTANTS.caught_by("sinks", "paged_attention is wrong", only=False)
class DecodesWithoutSinks(PlainKernels):
    """The kernel for steps without a prompt knows of no sinks."""

    def attend_token(self, q, k, v, params, sinks):
        sinks = None if self.is_decode and self.num_seqs > 1 else sinks
        return super().attend_token(q, k, v, params, sinks)


@MUTANTS.caught_by("attention_soft_cap", "paged_attention is wrong", only=False)
class TanhByExp(PlainOps):
    """tanh(x) is (e^2x - 1) / (e^2x + 1), which is inf / inf from 45 on."""

    def attend_token(self, q, k, v, params, sinks):
        result = super().attend_token(q, k, v, params, sinks)
        if params.soft_cap is None:
            return result
        raw = self.raw_scores(q, k) * params.scale / params.soft_cap
        return np.where((raw > 44).any(axis=0)[:, None], np.nan, result)

    def raw_scores(self, q, k):
        return (q[None] * k[:, self.kv_heads_of(len(q), k.shape[1])]).sum(axis=-1)


@MUTANTS.caught_by("attention_soft_cap", "paged_attention is wrong", only=False)
class LongWithoutCap(PlainOps):
    """The kernel that splits keys, from 512 on, knows of no soft-cap."""

    def attend_token(self, q, k, v, params, sinks):
        params = replace(params, soft_cap=None) if len(k) > 512 else params
        return super().attend_token(q, k, v, params, sinks)


@MUTANTS.caught_by("large_scores", "paged_attention is wrong|NaN", only=False)
class MaximumFromMinus10000(PlainOps):
    """The running maximum starts at -10000, in place of minus infinity."""

    def attend_token(self, q, k, v, params, sinks):
        kv_heads = self.kv_heads_of(len(q), k.shape[1])
        top = (q[None] * k[:, kv_heads]).sum(axis=-1).max(axis=0) * params.scale
        result = super().attend_token(q, k, v, params, sinks)
        return np.where((top < -10_100)[:, None], np.nan, result)


@MUTANTS.caught_by("large_scores", "paged_attention is wrong", only=False)
class HalfDotProducts(PlainKernels):
    """In float16 the product of q and k overflows, before the scale makes it small."""

    def attend_token(self, q, k, v, params, sinks):
        result = super().attend_token(q, k, v, params, sinks)
        kv_heads = self.kv_heads_of(len(q), k.shape[1])
        largest = np.abs((q[None] * k[:, kv_heads]).sum(axis=-1)).max(axis=0)
        overflows = (largest > 65_504) & (self.dtype == np.float16)
        return np.where(overflows[:, None], np.nan, result)


@MUTANTS.caught_by("attention_dtypes", "paged_attention is wrong", only=False)
class LongWithTheUsualScale(PlainOps):
    """The kernel that splits keys, from 512 on, takes the usual scale for granted."""

    def attend_token(self, q, k, v, params, sinks):
        params = replace(params, scale=q.shape[1] ** -0.5) if len(k) > 512 else params
        return super().attend_token(q, k, v, params, sinks)


@MUTANTS.caught_by("attention_dtypes", "paged_attention is wrong", only=False)
class ValuesThroughHalf(PlainOps):
    """Values in bfloat16 are loaded as float16, whose range is shorter."""

    def read_values(self, cache, slots):
        values = super().read_values(cache, slots)
        if cache.v.dtype != ml_dtypes.bfloat16:
            return values
        with np.errstate(over="ignore"):
            return float32(values.astype(np.float16))


@MUTANTS.caught_by("kv_dtypes", "values of about|paged_attention is wrong", only=False)
class Int8ScaleFixed(PlainOps):
    """An int8 cache has one scale for all, chosen for numbers up to six."""

    def store(self, rows, scales, slots, values):
        super().store(rows, scales, slots, values)
        if rows.dtype == np.int8:
            scales[slots] = 0.05
            with np.errstate(invalid="ignore"):
                steps = np.clip(np.rint(float32(values) / 0.05), -127, 127)
                rows[slots] = steps.astype(np.int8)


@MUTANTS.caught_by("kv_dtypes", "paged_attention is wrong", only=False)
class Float8WithoutSubnormals(PlainOps):
    """The conversion to an 8-bit float makes 0 of what is below its least normal number."""

    def store(self, rows, scales, slots, values):
        if rows.dtype.itemsize == 1 and rows.dtype != np.int8:
            least = float(ml_dtypes.finfo(rows.dtype).smallest_normal)
            values = np.where(np.abs(float32(values)) < least, 0, float32(values))
        super().store(rows, scales, slots, values)


@MUTANTS.caught_by("kv_dtypes", "paged_attention is wrong|NaN", only=False)
class Int8OfZeros(PlainOps):
    """The scale of a row of zeros is 0, and 0 / 0 is NaN."""

    def store(self, rows, scales, slots, values):
        super().store(rows, scales, slots, values)
        if rows.dtype == np.int8:
            is_zero = (float32(values) == 0).all(axis=-1, keepdims=True)
            scales[slots] = np.where(is_zero, np.nan, scales[slots])


PAGING = OpMutants("paging")


@PAGING.caught_by("layout", "caps.batch_invariant is claimed", only=False, quick=False)
class OtherOrderForManyQueries(PlainOps):
    """More than 64 queries of a sequence go to a kernel that sums the other way round."""

    def paged_attention(self, q, cache, plan, params, sinks=None):
        self.is_many = np.diff(plan.query_start).max() > 64
        return super().paged_attention(q, cache, plan, params, sinks)

    def attend_token(self, q, k, v, params, sinks):
        if self.is_many:
            k, v = np.ascontiguousarray(k[::-1]), np.ascontiguousarray(v[::-1])
        return super().attend_token(q, k, v, params, sinks)


@PAGING.caught_by("layout", "caps.batch_invariant is claimed", only=False, quick=False)
class OtherOrderForManySequences(PlainKernels):
    """Steps of more than 64 sequences go to a kernel that sums the other way round."""

    def attend_token(self, q, k, v, params, sinks):
        if self.num_seqs > 64:
            k, v = np.ascontiguousarray(k[::-1]), np.ascontiguousarray(v[::-1])
        return super().attend_token(q, k, v, params, sinks)


class CopiesInOneLaunch(PlainBackend):
    """copy_blocks launches 1024 copies at most, and forgets the rest."""

    def copy_blocks(self, src, dst, pairs):
        return super().copy_blocks(src, dst, pairs[:1024])


PAGING.caught_by("copies", "hundreds|1100 pairs", only=False)(CopiesInOneLaunch)
MUTANTS.extend(PAGING)
