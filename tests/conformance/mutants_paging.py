"""Backends that lose track of blocks: bugs in plans, writes, copies and caches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from op_mutants import OpMutants, float32
from plain_backend import PlainBackend, PlainOps, with_caps

MUTANTS = OpMutants("paging")


@MUTANTS.caught_by("layout", "Blocks in descending order: sequence 0 reads otherwise")
class RunsGoUpwards(PlainOps):
    """Five blocks side by side are read as one piece, from the lowest up."""

    def slots_to_read(self, blocks, positions, block_size):
        used = blocks[: positions[-1] // block_size + 1]
        if len(used) >= 5 and (abs(np.diff(used)) == 1).all():
            blocks = np.sort(used)
        return super().slots_to_read(blocks, positions, block_size)


@MUTANTS.caught_by("layout", "batch_invariant is claimed, but to the last bit, Blocks", only=False)
class SumsInMemoryOrder(PlainOps):
    """Keys are summed in the order in which they lie in memory, which is quicker to walk."""

    def slots_to_read(self, blocks, positions, block_size):
        return np.sort(super().slots_to_read(blocks, positions, block_size))


@MUTANTS.caught_by("layout", "Sequences (rotated by one|in reverse): sequence", only=False)
class BlocksOfTheFirst(PlainOps):
    """The loop over blocks ends where the first sequence's blocks end."""

    def visible(self, position, seq_len, params, block_size):
        positions = super().visible(position, seq_len, params, block_size)
        return positions[positions // block_size < self.num_blocks]

    def paged_attention(self, q, cache, plan, params, sinks=None):
        self.num_blocks = -(-int(plan.seq_lens[0]) // cache.block_size)
        return super().paged_attention(q, cache, plan, params, sinks)


class ScaledOps(PlainOps):
    """q / max|q|, and max|q| put into the scale; the maximum is the last row's."""

    def paged_attention(self, q, cache, plan, params, sinks=None):
        largest = float(np.abs(float32(q[-1:])).max(initial=0)) or 1.0
        params = replace(params, scale=params.scale * largest)
        found = super().paged_attention(float32(q) / largest, cache, plan, params, sinks)
        return found.astype(q.dtype)


@MUTANTS.caught_by("poison", "A step with 3 padded_tokens of NaN: NaN or infinity in the attention")
class ScaleOfTheStep(PlainBackend):
    """Queries are scaled by the largest of the step's last row, padding or not."""

    ops_class = ScaledOps
    caps = with_caps(batch_invariant=False)


@MUTANTS.caught_by("poison", "Poison in slots that nobody owns: NaN or infinity", only=False)
class ZeroTimesNaN(PlainOps):
    """Whole blocks are read; keys beyond the end get a weight of zero, and values stay."""

    def visible(self, position, seq_len, params, block_size):
        self.last = super().visible(position, seq_len, params, block_size)
        end = -(-(position + 1) // block_size) * block_size
        return np.arange(self.last[0], end) if len(self.last) else self.last

    def attend_token(self, q, k, v, params, sinks):
        seen = len(self.last)
        padded = np.zeros_like(v[:1, 0, 0])
        found = super().attend_token(q, k[:seen], v[:seen], params, sinks)
        return found + padded * (0 * v[seen:]).sum()


@MUTANTS.caught_by("writes", "another sequence wrote its token .*sequence . reads otherwise")
class WideStores(PlainOps):
    """A decode stores its row in vectors of sixteen numbers, which reach into the next row."""

    def store(self, rows, scales, slots, values):
        width = rows[0].size
        spill = -width % 16
        super().store(rows, scales, slots, values)
        flat = rows.reshape(-1)
        if spill and len(slots) == 1:
            flat[(int(slots[0]) + 1) * width :][:spill] = 0


@MUTANTS.caught_by("writes", "another sequence wrote its token", only=False)
class OneTokenTooMany(PlainOps):
    """The last token is stored a second time, one slot further."""

    def slots_to_write(self, plan, block_size):
        slots = plan.slots.copy()
        return np.append(slots, slots[-1] + 1)

    def store(self, rows, scales, slots, values):
        inside = slots < len(rows)
        values = np.concatenate([values, values[-1:]])
        super().store(rows, scales, slots[inside], values[inside])


@MUTANTS.caught_by("writes", "The result of attend for tokens 5 to 5: NaN", only=False)
class ForgetfulAttend(PlainOps):
    """attend writes to a copy of the cache, and returns the one that it was given."""

    def attend(self, q, k, v, cache, plan, params, sinks=None):
        copied = replace(cache, k=cache.k.copy(), v=cache.v.copy())
        return super().attend(q, k, v, copied, plan, params, sinks)[0], cache


@MUTANTS.caught_by("writes", "IndexError|reads otherwise|NaN or infinity", only=False)
class PlanByShapes(PlainBackend):
    """Plans are kept by the shapes of their batch, as if nothing else changed."""

    def __init__(self, index, options):
        super().__init__(index, options)
        self.plans = {}

    def plan(self, batch, block_size):
        shapes = (batch.positions.shape, *(group.block_table.shape for group in batch.groups))
        return self.plans.setdefault(shapes, super().plan(batch, block_size))


@MUTANTS.caught_by("copies", "After 40 pairs in one call: NaN .* not written")
class OneWarpOfPairs(PlainBackend):
    """Forks copy the first 32 pairs: one for each thread of a warp."""

    def copy_blocks(self, src, dst, pairs):
        return super().copy_blocks(src, dst, pairs[:32] if src is dst else pairs)


@MUTANTS.caught_by("copies", r"IndexError")
class FirstPair(PlainBackend):
    """An empty list of pairs has no first one."""

    def copy_blocks(self, src, dst, pairs):
        if src is dst and pairs[0, 0] == pairs[0, 1]:
            return dst
        return super().copy_blocks(src, dst, pairs)


@MUTANTS.caught_by("copies", "Copied blocks: NaN .* not written", only=False)
class CopiesKeysOnly(PlainBackend):
    """Forks copy the keys and leave the values."""

    def copy_blocks(self, src, dst, pairs):
        values = dst.v.copy()
        dst = super().copy_blocks(src, dst, pairs)
        if src is dst:
            dst.v[...] = values
        return dst


@MUTANTS.caught_by("copies", "Copied blocks: ", only=False)
class ForkWithoutCopy(PlainBackend):
    """A fork goes on in the blocks of the request it forked from."""

    def copy_blocks(self, src, dst, pairs):
        return dst if src is dst else super().copy_blocks(src, dst, pairs)


@MUTANTS.caught_by("copies", "Copied blocks: ", only=False)
class CopiesBackwards(PlainBackend):
    """Pairs are taken for (to, from)."""

    def copy_blocks(self, src, dst, pairs):
        return super().copy_blocks(src, dst, pairs[:, ::-1])


@MUTANTS.caught_by("copies", "One of several copies of a block", only=False)
class OneTargetEach(PlainBackend):
    """Pairs are kept by their source, so that the last target wins."""

    def copy_blocks(self, src, dst, pairs):
        if src is dst:
            pairs = np.array(list(dict(pairs.tolist()).items()), np.int32).reshape(-1, 2)
        return super().copy_blocks(src, dst, pairs)


class HostBackend(PlainBackend):
    """Knows which caches are on the host."""

    host_caches = ()

    def make_kv(self, spec, num_blocks, block_size, *, on_host=False):
        cache = super().make_kv(spec, num_blocks, block_size)
        self.host_caches += (cache,) if on_host else ()
        return cache

    def is_host(self, cache):
        return any(cache is each for each in self.host_caches)


@MUTANTS.caught_by("swap", "After 40 pairs to the host and back: sequence")
class LosesTheLastPair(PlainBackend):
    """A swap goes in rounds of eight pairs; one that is left over alone is lost."""

    def copy_blocks(self, src, dst, pairs):
        if src is not dst and len(pairs) > 8:
            pairs = pairs[:-1]
        return super().copy_blocks(src, dst, pairs)


@MUTANTS.caught_by("swap", "Blocks swapped out and in again", only=False)
class SwapsToTheSameBlock(HostBackend):
    """A block's number on the host is taken to be its number on the device."""

    def copy_blocks(self, src, dst, pairs):
        if self.is_host(dst):
            pairs = np.stack([pairs[:, 0], pairs[:, 0] % (len(dst.k) // dst.block_size)], axis=1)
        return super().copy_blocks(src, dst, pairs)


@MUTANTS.caught_by("swap", "Blocks swapped out and in again", only=False)
class NeverSwapsIn(HostBackend):
    """What was swapped out is not restored."""

    def copy_blocks(self, src, dst, pairs):
        if self.is_host(src):
            return dst
        return super().copy_blocks(src, dst, pairs)


@MUTANTS.caught_by("swap", "Layer 0 of two, swapped through host space of its own", only=False)
class SharedSwapSpace(PlainBackend):
    """Layers of equal spec share one pinned buffer on the host."""

    def make_kv(self, spec, num_blocks, block_size, *, on_host=False):
        if not on_host:
            return super().make_kv(spec, num_blocks, block_size)
        self.pinned = getattr(self, "pinned", {})
        made = super().make_kv(spec, num_blocks, block_size)
        return self.pinned.setdefault((spec, num_blocks), made)


@MUTANTS.caught_by("groups", "KV group 2 of 3, written through its plan")
class TwoGroups(PlainBackend):
    """There are full layers and sliding ones: a third group gets the plan of the second."""

    def plan(self, batch, block_size):
        plans = super().plan(batch, block_size)
        return [plans[min(index, 1)] for index in range(len(plans))]


@MUTANTS.caught_by("caches", "Cache 0 of 18 of one spec, after the others were written")
class SixteenCaches(PlainBackend):
    """Caches of one size come from a pool of sixteen, which starts again from its first."""

    def __init__(self, index, options):
        super().__init__(index, options)
        self.pool = []

    def make_kv(self, spec, num_blocks, block_size, *, on_host=False):
        cache = super().make_kv(spec, num_blocks, block_size)
        self.pool.append((spec, num_blocks, cache))
        latest = [made[:2] for made in self.pool[-17:]]
        if latest == 17 * [(spec, num_blocks)]:
            return self.pool[-17][2]
        return cache


@MUTANTS.caught_by("caches", "Cache 0 of 18 of one spec", only=False)
class OneCachePerSpec(PlainBackend):
    """Layers of equal spec get the same cache."""

    def make_kv(self, spec, num_blocks, block_size, *, on_host=False):
        self.caches = getattr(self, "caches", {})
        made = super().make_kv(spec, num_blocks, block_size)
        return self.caches.setdefault((spec, num_blocks, on_host), made)
