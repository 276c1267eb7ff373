"""Bugs that only a whole engine shows: what is kept from step to step, or from engine to engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from mutant import Mutant
from plain_backend import PlainBackend, PlainOps, backend_with, with_caps

from octavo.api import AttentionPlan, MemoryInfo, make_plans
from octavo.testing.step_watch import shapes_of


class RopeTablesByPositions(PlainOps):
    """Gemma 3 asks twice for the same positions, with another base: it gets the first table."""

    positions: Any = None
    table: Any = None

    def rope_table(self, positions, context_lens, spec):
        if positions is not self.positions:
            self.positions, self.table = (
                positions,
                super().rope_table(positions, context_lens, spec),
            )
        return self.table


class OnePlan(PlainBackend):
    """Every layer reads through the block table of the first KV group."""

    def plan(self, batch, block_size):
        plans = make_plans(batch, self.put)
        return [plans[0]] * len(plans)


class TiedTablePrepared(PlainBackend):
    """What it does to a weight on the device (here: round it) it does to the embedding, too."""

    def put_linear(self, weight, bias, dtype):
        if getattr(weight, "base", None) is None and id(weight) in self.put_ids:
            weight[...] = weight.astype(np.float16)
        return super().put_linear(weight, bias, dtype)

    def __init__(self, index, options):
        super().__init__(index, options)
        self.put_ids = set()

    def put(self, array, dtype=None):
        result = super().put(array, dtype)
        if result.ndim == 2 and result.dtype == np.float32:
            self.put_ids.add(id(result))
        return result


class Compiled(PlainBackend):
    """A right backend that compiles: it runs the Python step once for each key."""

    caps = with_caps(token_buckets=(8, 32), seq_buckets=(4, 16))

    def compile(self, step):
        keys = set()
        program = getattr(step, "__wrapped__", step)  # what was compiled: it runs no Python

        def run(weights, caches, batch, plans, sampling, targets=None):
            key = self.key(batch, plans, sampling, targets)
            chosen = program if key in keys else step
            keys.add(key)
            return chosen(weights, caches, batch, plans, sampling, targets)

        return run

    def key(self, *arguments):
        return shapes_of(arguments)


class KeyWithValues(Compiled):
    def key(self, batch, *rest):
        return batch.token_ids.tobytes(), super().key(batch, *rest)


@dataclass(frozen=True)
class PlanOfKeys(AttentionPlan):
    key_slots: Any = None  # as many as there are keys


class PlanOfExactSize(Compiled):
    def plan(self, batch, block_size):
        num_keys = int(np.sum(batch.seq_lens))
        return [
            PlanOfKeys(**_fields_of(plan), key_slots=np.zeros(num_keys, np.int32))
            for plan in make_plans(batch, self.put)
        ]


def _fields_of(plan):
    return {field.name: getattr(plan, field.name) for field in fields(plan)}


class StaticFieldsForgotten(PlainBackend):
    """The key holds the shapes of the arrays, but nothing of what is static in SamplingBatch."""

    def compile(self, step):
        captured: dict[str, dict[str, Any]] = {}

        def run(weights, caches, batch, plans, sampling, targets=None):
            names = ("all_greedy", "truncated", "num_logprobs")
            static = {name: getattr(sampling, name) for name in names}
            shapes = shapes_of((batch, replace(sampling, **dict.fromkeys(names, 0)), targets))
            sampling = replace(sampling, **captured.setdefault(shapes, static))
            return step(weights, caches, batch, plans, sampling, targets)

        return run


class PlanCaptured(PlainBackend):
    """The plan of the first step of a shape is part of the program."""

    def compile(self, step):
        captured: dict[str, Any] = {}

        def run(weights, caches, batch, plans, *rest):
            plans = captured.setdefault(shapes_of((batch, plans)), plans)
            return step(weights, caches, batch, plans, *rest)

        return run


class PlansInARing(PlainBackend):
    """Plans are kept under the step's number modulo 100, and taken for the current one's."""

    def compile(self, step):
        ring: dict[tuple[int, str], Any] = {}
        num_steps = 0

        def run(weights, caches, batch, plans, *rest):
            nonlocal num_steps
            num_steps += 1
            plans = ring.setdefault((num_steps % 100, shapes_of(plans)), plans)
            return step(weights, caches, batch, plans, *rest)

        return run


class CachesOfTheClass(PlainBackend):
    """Two engines whose caches have the same shape share them."""

    pool: WeakValueDictionary = WeakValueDictionary()  # noqa: RUF012

    def __init__(self, index, options):
        super().__init__(index, options)
        self.num_made = 0

    def make_kv(self, spec, num_blocks, block_size, *, on_host=False):
        self.num_made += 1
        key = (self.num_made, spec, num_blocks, block_size)
        cache = self.pool.get(key)
        if cache is None:
            cache = super().make_kv(spec, num_blocks, block_size, on_host=on_host)
            self.pool[key] = cache
        return cache


class WorkspaceOfTheClass(PlainBackend):
    """``close`` frees what other backends of the process work in."""

    workspace: Any = None

    def __init__(self, index, options):
        super().__init__(index, options)
        WorkspaceOfTheClass.workspace = np.zeros(1)

    def plan(self, batch, block_size):
        if self.workspace is None:
            raise RuntimeError("the workspace has been freed")
        return super().plan(batch, block_size)

    def close(self):
        WorkspaceOfTheClass.workspace = None


class CachesListed(PlainBackend):
    """A list of all caches, kept for a statistic."""

    all_caches: list[Any] = []  # noqa: RUF012

    def make_kv(self, spec, num_blocks, block_size, *, on_host=False):
        cache = super().make_kv(spec, num_blocks, block_size, on_host=on_host)
        self.all_caches.append(cache)
        return cache


class MemoryNotGivenBack(PlainBackend):
    """The caches' objects go, their device memory stays."""

    num_bytes = 0

    def make_kv(self, spec, num_blocks, block_size, *, on_host=False):
        if not on_host:
            MemoryNotGivenBack.num_bytes += spec.bytes_per_token * num_blocks * block_size
        return super().make_kv(spec, num_blocks, block_size, on_host=on_host)

    def memory(self):
        return MemoryInfo((1 << 32) - self.num_bytes, 1 << 33)


LoadFunction = Callable[..., Any]


def _mutant(name: str, load: LoadFunction, caught_by: str, says: str, **options: Any) -> Mutant:
    return Mutant(name, load.__doc__ or name, f"engine.{caught_by}", says, load=load, **options)


MUTANTS = (
    Mutant(
        "rope tables kept by positions",
        RopeTablesByPositions.__doc__ or "",
        "engine.families",
        r"(?s)gemma3 in float32.*wrong alone.*two KV groups with a rope each",
        load=backend_with(ops=RopeTablesByPositions),
    ),
    _mutant(
        "one plan for all KV groups",
        OnePlan,
        "families",
        r"(?s)two KV groups.*backend\.plan",
        only=False,
    ),
    _mutant(
        "tied embedding rounded in place",
        TiedTablePrepared,
        "families",
        r"(?s)(qwen2|gemma).*backend\.put_linear",
        only=False,
    ),
    _mutant(
        "plan captured as a constant",
        PlanCaptured,
        "families",
        r"token \d+ of the answer to a prompt of 40 tokens",
        only=False,
    ),
    _mutant(
        "static sampling fields not in the key",
        StaticFieldsForgotten,
        "options",
        r"(?s)one request after the other.*static fields of SamplingBatch",
    ),
    _mutant(
        "plans in a ring of 100",
        PlansInARing,
        "long_run",
        r"(?s)in which two fit.*differs from the same one alone",
    ),
    _mutant(
        "retraced for every value",
        KeyWithValues,
        "no_compilation_after_warm_up",
        r"(?s)After 3 steps of the same shapes.*Only values differ",
    ),
    _mutant(
        "plan of exact size",
        PlanOfExactSize,
        "no_compilation_after_warm_up",
        r"(?s)What backend\.plan returned has other shapes.*key_slots",
    ),
    _mutant(
        "caches of the class",
        CachesOfTheClass,
        "several_engines",
        r"(?s)taking turns with another engine.*belongs to the class",
    ),
    _mutant(
        "workspace of the class",
        WorkspaceOfTheClass,
        "several_engines",
        r"after another engine was closed.*the workspace has been freed",
        only=False,
    ),
    _mutant("caches in a list", CachesListed, "release", r"of their 6 caches are still alive"),
    _mutant(
        "memory not given back", MemoryNotGivenBack, "release", r"memory\(\)\.free_bytes falls"
    ),
)
