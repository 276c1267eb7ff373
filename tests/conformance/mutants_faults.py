"""Backends that do well until something fails, hangs, is aborted, or comes in great numbers."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
from mutant import Mutant
from plain_backend import PlainBackend

VOCAB_SIZE, HIDDEN_SIZE = 256, 64  # of the tiny model that faults are injected into


class StaysBroken(PlainBackend):
    """Marks its stream as capturing, and forgets to unmark it when the step raises."""

    capturing = False

    def compile(self, step):
        def run(*arguments):
            if self.capturing:
                raise RuntimeError("a capture is under way")
            self.capturing = True
            results = step(*arguments)
            self.capturing = False
            return results

        return run


class NeverGivesBackCaches(PlainBackend):
    """Once a step is compiled, its graphs hold on to every cache; there is memory for a dozen."""

    num_held = None

    def compile(self, step):
        self.num_held = 0
        return super().compile(step)

    def make_kv(self, spec, num_blocks, block_size, *, on_host=False):
        if self.num_held is not None:
            self.num_held += 1
            if self.num_held > 12:
                raise MemoryError("held by graphs")
        return super().make_kv(spec, num_blocks, block_size, on_host=on_host)


class StopsAtNaN(PlainBackend):
    """Compiles with a debugging aid: a NaN anywhere in a step raises."""

    def compile(self, step):
        def run(*arguments):
            caches, result, prompt = step(*arguments)
            if result.valid is not None and not result.valid.all():
                raise FloatingPointError("NaN in the output of a compiled step")
            return caches, result, prompt

        return run


class KeepsUnfinishedLoads(PlainBackend):
    """Weights belong to the step from ``compile`` on; before, nobody gives them back."""

    num_lost = 0

    def __init__(self, index, options):
        super().__init__(index, options)
        self.has_table, self.num_unowned = False, 0

    def put(self, array, dtype=None):
        self.has_table = self.has_table or array.shape == (VOCAB_SIZE, HIDDEN_SIZE)
        return super().put(array, dtype)

    def put_linear(self, weight, bias, dtype):
        if KeepsUnfinishedLoads.num_lost:
            KeepsUnfinishedLoads.num_lost = 0
            raise MemoryError("out of memory")
        self.num_unowned += self.has_table
        return super().put_linear(weight, bias, dtype)

    def compile(self, step):
        self.num_unowned = 0
        return super().compile(step)

    def close(self):
        KeepsUnfinishedLoads.num_lost = self.num_unowned


class CannotBeClosedAfterFailures(PlainBackend):
    """Waits for every step that was started, those that raised included."""

    num_under_way = 0

    def compile(self, step):
        def run(*arguments):
            self.num_under_way += 1
            results = step(*arguments)
            self.num_under_way -= 1
            return results

        return run

    def close(self):
        if self.num_under_way:
            raise RuntimeError(f"{self.num_under_way} steps are under way")


class OneThread(PlainBackend):
    """Selects its device for the thread that loads it."""

    def __init__(self, index, options):
        super().__init__(index, options)
        self.local = threading.local()
        self.local.device = index

    def compile(self, step):
        def run(*arguments):
            return step(*arguments) if self.local.device == 0 else None

        return run


class GridOf32(PlainBackend):
    """Plans at most 32 sequences of a decode; the others read what the last of them reads."""

    def plan(self, batch, block_size):
        num_seqs = len(batch.seq_lens)
        if num_seqs == len(batch.token_ids) and num_seqs > 32:
            seqs = np.minimum(batch.token_seqs, 31).astype(np.int32)
            batch = replace(batch, token_seqs=seqs)
        return super().plan(batch, block_size)


class CleanPages(PlainBackend):
    """Spares the copy of a block that is on the host already: it cannot have changed since.

    The entry goes when the block comes back; that of an aborted request never does.
    """

    def __init__(self, index, options):
        super().__init__(index, options)
        self.on_host = {}  # (cache, host block) → whether it holds anything

    def make_kv(self, spec, num_blocks, block_size, *, on_host=False):
        cache = super().make_kv(spec, num_blocks, block_size, on_host=on_host)
        if on_host:
            self.on_host[id(cache)] = (cache, set())
        return cache

    def copy_blocks(self, src, dst, pairs):
        if id(dst) in self.on_host:
            _, held = self.on_host[id(dst)]
            pairs = np.array([pair for pair in pairs if pair[1] not in held], np.int32)
            pairs = pairs.reshape(-1, 2)
            written = [pair[1] for pair in pairs if self.arrays(src)[0][pair[0]].any()]
            held.update(written)
        if id(src) in self.on_host:
            self.on_host[id(src)][1].difference_update(pairs[:, 0].tolist())
        return super().copy_blocks(src, dst, pairs)


def fault(check, name, says, load, **more):
    return Mutant(name, load.__doc__, f"faults.{check}", says, load=load, **more)


MUTANTS: tuple[Mutant, ...] = (
    fault("passing", "broken after an exception", r"capture is under way", StaysBroken),
    fault(
        "lasting", "never gives back caches", r"had to stop.*held by graphs", NeverGivesBackCaches
    ),
    fault("nan", "raises at NaN", r"another error.*FloatingPointError", StopsAtNaN),
    fault(
        "load",
        "keeps unfinished loads",
        r"broke off in put and was closed.*out of m",
        KeepsUnfinishedLoads,
    ),
    fault(
        "close", "waits for failed steps", r"close raised.*under way", CannotBeClosedAfterFailures
    ),
    fault("hang", "one thread", r"AttributeError.*device", OneThread),
    fault("overload", "grid of 32", r"requests in a step.*undisturbed", GridOf32),
    fault("abort", "clean pages", r"aborted while its blocks.*undisturbed", CleanPages),
)
