"""Backends that store keys and values wrongly, or hand them on wrongly in ``attend``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from op_mutants import OpMutants
from plain_backend import PlainOps

MUTANTS = OpMutants()


@MUTANTS.caught_by("write_kv", "at head 8 to 11 of 12.*never written")
class EightKVHeads(PlainOps):
    """A grid of eight: further heads are not written, and so stay zero."""

    def write_kv(self, cache, k, v, plan):
        k, v = k.copy(), v.copy()
        k[:, 8:], v[:, 8:] = 0, 0
        return super().write_kv(cache, k, v, plan)


@MUTANTS.caught_by("write_kv", "paged_attention is wrong", only=False)
class NeighboursSlot(PlainOps):
    """The first slot of a block is taken for the last of the block before."""

    def slots_to_write(self, plan, block_size):
        slots = super().slots_to_write(plan, block_size)
        return np.where(slots % block_size == 0, slots - 1, slots)


@MUTANTS.caught_by("kv_saturation", "of float8_e4m3fn, come back as NaN or infinity")
class NoSaturation(PlainOps):
    """Casts to 8-bit floats do not saturate."""

    def store(self, rows, scales, slots, values):
        if rows.dtype.name.startswith("float8"):
            with np.errstate(over="ignore", invalid="ignore"):
                rows[slots] = values.astype(rows.dtype)
        else:
            super().store(rows, scales, slots, values)


@MUTANTS.caught_by("kv_dtypes", "paged_attention is wrong")
class OneScale(PlainOps):
    """One scale for all keys ever written: the first token's."""

    def store(self, rows, scales, slots, values):
        super().store(rows, scales, slots, values)
        if rows.dtype == np.int8:
            scales[slots] = 1 / 127


@MUTANTS.caught_by("attend", "of attend is wrong.*as if the sinks were ignored")
class DroppedSinks(PlainOps):
    """The composite does not hand the sinks on."""

    def attend(self, q, k, v, cache, plan, params, sinks=None):
        return super().attend(q, k, v, cache, plan, params)


@MUTANTS.caught_by("rope_attend", "The result of rope_attend is wrong")
class WholeHeadsTurned(PlainOps):
    """The composite turns whole heads or nothing, in layers with a window."""

    def rope_attend(self, q, k, v, cos, sin, cache, plan, params, sinks=None):
        if params.window is not None and 2 * cos.shape[1] < q.shape[2]:
            return self.attend(q, k, v, cache, plan, params, sinks)
        return super().rope_attend(q, k, v, cos, sin, cache, plan, params, sinks)


@MUTANTS.caught_by("rope_attend", "The result of rope_attend is wrong", only=False)
class UnturnedKeys(PlainOps):
    """The composite turns queries and stores the keys as they came."""

    def rope_attend(self, q, k, v, cos, sin, cache, plan, params, sinks=None):
        return self.attend(self.rope(q, cos, sin), k, v, cache, plan, params, sinks)


@MUTANTS.caught_by("attend", "over the cache that attend returned is wrong", only=False)
class OldCache(PlainOps):
    """Returns the cache as it was: right where it is updated in place, wrong where it is not."""

    def attend(self, q, k, v, cache, plan, params, sinks=None):
        old = replace(cache, k=cache.k.copy(), v=cache.v.copy())
        attended, _ = super().attend(q, k, v, cache, plan, params, sinks)
        return attended, old
