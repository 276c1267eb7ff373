"""Attention alone: decode against the copy bandwidth, prefill against the matmul rate and torch.

Octavo's is measured as its policy binds it, and once more for each implementation that can be
pinned. What it computes is compared with torch's attention over the same keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch

from gpu_clock import Clock
from gpu_peers import PEERS
from gpu_settings import AttentionShape, Row, Settings, decode_shape, prefill_shape
from octavo.api import AttentionParams, GroupBatch, KVSpec, StepBatch, UsageError

DECODE = "decode attention"
PREFILL = "prefill attention"
ERROR_BOUNDS = {"bfloat16": 0.01, "float8_e4m3fn": 0.08, "int8": 0.03}
"""Caches that are measured, and how far |result - torch's| / |torch's| may be for each."""
DECODE_AIM, PREFILL_AIM, PEER_AIM = 0.85, 0.70, 0.90
TILE_TOKENS = 64  # from here on a block of the cache fills the tile that prefill copies at once
CACHES_IN_TURN = 4  # so that no call finds its keys in the device's own caches


@dataclass(frozen=True)
class Served:
    """A backend, and its op sets by name: ``octavo`` as the policy binds it, and pinned ones."""

    backend: Any
    ops: Mapping[str, Any]
    missing: Mapping[str, str]
    """Who cannot be pinned here, and why."""
    block_size: int

    def with_blocks(self) -> Iterator[Served]:
        """With the block size that a user gets, and with blocks that fill a kernel's tile."""
        sizes: Sequence[int] = self.backend.caps.block_sizes
        for size in dict.fromkeys((sizes[0], TILE_TOKENS)):
            if size in sizes:
                yield replace(self, block_size=size)

    def words(self, shape: AttentionShape) -> str:
        """The shape, and that of the cache where it is not the usual one."""
        if self.block_size == self.backend.caps.block_sizes[0]:
            return shape.label
        return f"{shape.label}, blocks of {self.block_size}"

    def plan(self, batch: StepBatch) -> Any:
        """As a step has it, on the device."""
        from octavo.testing.placed_plans import placed_plans

        (plan,) = placed_plans(self.backend, batch, self.block_size)
        return plan


def served(settings: Settings) -> Served:
    """Load the backend. Raises OctavoError if there is no such device."""
    from octavo.ops.binding import bind_ops
    from octavo.testing.subject import Subject

    subject = Subject.installed(settings.backend, settings.device)
    names = [spec.name for spec in subject.plugins.attention if spec.backend == settings.backend]
    rest = (subject.backend, subject.resolution, subject.policy, subject.plugins)
    pinned, missing = {}, {}
    for name in names:
        try:
            pinned[f"octavo, {name}"] = bind_ops(*rest, attention_backend=name)[0]
        except UsageError as error:
            missing[f"octavo, {name}"] = str(error)
    ops = {"octavo": subject.ops} | pinned
    return Served(subject.backend, ops, missing, subject.backend.caps.block_sizes[0])


def run(settings: Settings) -> Iterator[Row]:
    octavo = served(settings)
    clock = Clock(settings.torch_device)
    for name, why in octavo.missing.items():
        yield {"table": DECODE, "shape": "", "cache": "", "who": name, "why": why}
    with torch.inference_mode():
        for dtype in ERROR_BOUNDS:
            if dtype in octavo.backend.caps.kv_dtypes:
                for each in octavo.with_blocks():
                    yield from _decode(settings, each, clock, dtype)
            else:
                yield {"table": DECODE, "shape": "", "cache": dtype, "why": "not offered here"}
        for each in octavo.with_blocks():
            yield from _prefill(settings, each, clock)


def step_batch(shape: AttentionShape, block_size: int, query_len: int, seed: int) -> StepBatch:
    """``query_len`` tokens at the end of every context; blocks lie in random order."""
    num_blocks = -(-shape.context_len // block_size)
    order = 1 + np.random.default_rng(seed).permutation(shape.num_seqs * num_blocks)
    table = order.reshape(shape.num_seqs, num_blocks).astype(np.int32)
    positions = np.tile(
        np.arange(shape.context_len - query_len, shape.context_len), shape.num_seqs
    ).astype(np.int32)
    token_seqs = np.repeat(np.arange(shape.num_seqs), query_len).astype(np.int32)
    blocks = table[token_seqs, positions // block_size]
    return StepBatch(
        token_ids=np.zeros(len(positions), np.int32),
        positions=positions,
        token_seqs=token_seqs,
        query_start=np.arange(0, len(positions) + 1, query_len, dtype=np.int32),
        seq_lens=np.full(shape.num_seqs, shape.context_len, np.int32),
        context_lens=np.full(len(positions), shape.context_len, np.int32),
        logits_rows=np.arange(shape.num_seqs, dtype=np.int32),
        groups=(GroupBatch(table, blocks * block_size + positions % block_size),),
    )


def _filled(
    settings: Settings, octavo: Served, shape: AttentionShape, dtype: str
) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """A cache with random keys and values for the whole context, written as a prefill would."""
    spec = KVSpec("full", shape.num_kv_heads, shape.head_dim, dtype)
    num_blocks = 1 + shape.num_seqs * -(-shape.context_len // octavo.block_size)
    cache = octavo.backend.make_kv(spec, num_blocks, octavo.block_size)
    plan = octavo.plan(step_batch(shape, octavo.block_size, shape.context_len, seed=0))
    size = (shape.num_seqs * shape.context_len, shape.num_kv_heads, shape.head_dim)
    k, v = (_random(size, settings) for _ in range(2))
    return octavo.ops["octavo"].write_kv(cache, k, v, plan), k, v


def _random(size: tuple[int, ...], settings: Settings) -> torch.Tensor:
    return torch.randn(size, device=settings.torch_device, dtype=torch.bfloat16)


def _params(shape: AttentionShape) -> AttentionParams:
    return AttentionParams(scale=1 / math.sqrt(shape.head_dim))


def _decode(settings: Settings, octavo: Served, clock: Clock, dtype: str) -> Iterator[Row]:
    shape = decode_shape(settings)
    cache, k, v = _filled(settings, octavo, shape, dtype)
    others = [_filled(settings, octavo, shape, dtype)[0] for _ in range(CACHES_IN_TURN - 1)]
    plan = octavo.plan(step_batch(shape, octavo.block_size, 1, seed=0))
    q = _random((shape.num_seqs, shape.num_heads, shape.head_dim), settings)
    expected = _dense(q, k, v, shape)
    calls, errors, rows = {}, {}, {}
    for name, ops in octavo.ops.items():
        rows[name] = {"table": DECODE, "shape": octavo.words(shape), "cache": dtype, "who": name}

        def all_caches(ops: Any = ops) -> None:
            for each in (cache, *others):
                ops.paged_attention(q, each, plan, _params(shape))

        try:
            found = ops.paged_attention(q, cache, plan, _params(shape))
            errors[name] = relative_error(found, expected)
            calls[name] = _replayed(all_caches, settings)
        except Exception as error:  # noqa: BLE001 - an implementation that fails is a row, no end
            yield rows[name] | {"why": _said(error), "is_wrong": True}
    taken = clock.alternating(calls, _rounds(settings))
    for name, times in taken.items():
        seconds = median(times) / CACHES_IN_TURN
        is_wrong = not errors[name] <= ERROR_BOUNDS[dtype]
        row = rows[name] | {"error": errors[name], "is_wrong": is_wrong}
        yield row | _bandwidth(settings, shape, dtype, seconds)


def _bandwidth(settings: Settings, shape: AttentionShape, dtype: str, seconds: float) -> Row:
    rate = kv_bytes(shape, dtype) / seconds
    row: Row = {"microseconds": 1e6 * seconds, "GB/s": rate / 1e9}
    if settings.copy_bytes_per_s:
        share = rate / settings.copy_bytes_per_s
        row |= {"of the copy": _percent(share), "aim": _met(share, DECODE_AIM)}
    return row


def _dense(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, shape: AttentionShape
) -> torch.Tensor:
    """Torch's own attention of one query for each context."""
    size = (shape.num_seqs, shape.context_len, shape.num_kv_heads, shape.head_dim)
    k, v = (x.view(size).transpose(1, 2) for x in (k, v))
    attention = torch.nn.functional.scaled_dot_product_attention
    return attention(q[:, :, None], k, v, enable_gqa=True)[:, :, 0]


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """``|found - expected| / |expected|`` over all elements; NaN if any is."""
    difference = (found.float() - expected.float()).norm() / expected.float().norm()
    return float(difference)


def kv_bytes(shape: AttentionShape, dtype: str) -> float:
    """Keys and values of all contexts, each read once; int8 has a float32 scale a row."""
    rows = 2 * shape.num_seqs * shape.context_len * shape.num_kv_heads
    row_bytes = {"bfloat16": 2 * shape.head_dim, "int8": shape.head_dim + 4}
    return rows * row_bytes.get(dtype, shape.head_dim)


def _replayed(call: Callable[[], object], settings: Settings) -> Callable[[], object]:
    """The call as a graph, as a decode step runs: what is timed is the device, not the launches."""
    if not settings.torch_device.startswith("cuda"):
        return call
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def _prefill(settings: Settings, octavo: Served, clock: Clock) -> Iterator[Row]:
    shape = prefill_shape(settings)
    cache, k, v = _filled(settings, octavo, shape, "bfloat16")
    plan = octavo.plan(step_batch(shape, octavo.block_size, shape.context_len, seed=0))
    q = _random((shape.context_len, shape.num_heads, shape.head_dim), settings)
    made: dict[str, Callable[[], Callable[[], object]]] = {
        name: lambda ops=ops: lambda: ops.paged_attention(q, cache, plan, _params(shape))
        for name, ops in octavo.ops.items()
    }
    made |= {name: lambda make=make: make(q, k, v) for name, make in PEERS.items()}
    calls = {}
    for name, make in made.items():
        try:
            call = make()
            call()
        except Exception as error:  # noqa: BLE001 - what cannot run here is a row, no end
            row = {"table": PREFILL, "shape": octavo.words(shape), "who": name, "why": _said(error)}
            yield row | {"is_wrong": name in octavo.ops}
        else:
            calls[name] = call
    errors = {}
    if "torch SDPA" in calls:
        expected: Any = calls["torch SDPA"]()
        dense = expected[0].transpose(0, 1)
        errors = {
            name: relative_error(calls[name](), dense) for name in octavo.ops if name in calls
        }
    taken = clock.alternating(calls, _rounds(settings))
    for row in prefill_rows(settings, shape, taken, errors):
        yield row | {"shape": octavo.words(shape)}


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"


def prefill_rows(
    settings: Settings,
    shape: AttentionShape,
    taken: Mapping[str, list[float]],
    errors: Mapping[str, float],
) -> Iterator[Row]:
    """Causal: half of the scores are computed, and counted."""
    pairs = shape.context_len * (shape.context_len + 1) / 2
    flop = 4.0 * shape.num_heads * shape.head_dim * pairs
    best = min((median(times) for name, times in taken.items() if name in PEERS), default=None)
    for name, times in taken.items():
        seconds = median(times)
        row: Row = {"table": PREFILL, "shape": shape.label, "who": name}
        row |= {"milliseconds": 1e3 * seconds, "TFLOP/s": flop / seconds / 1e12}
        share = None
        if settings.matmul_flop_per_s:
            share = flop / seconds / settings.matmul_flop_per_s
            row["of the matmul"] = _percent(share)
        if name not in PEERS:
            row |= _held_to(share, None if best is None else best / seconds)
        if name in errors:
            is_wrong = not errors[name] <= ERROR_BOUNDS["bfloat16"]
            row |= {"error": errors[name], "is_wrong": is_wrong}
        yield row


def _held_to(share: float | None, of_best: float | None) -> Row:
    row: Row = {} if share is None else {"aim": _met(share, PREFILL_AIM)}
    if of_best is not None:
        row |= {"of the best peer": of_best, "aim of it": _met(of_best, PEER_AIM)}
    return row


def _rounds(settings: Settings) -> int:
    return 1 if settings.quick or settings.rehearse else 5


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _met(share: float, aim: float) -> str:
    return f"{100 * aim:.0f} %: {'met' if share >= aim else 'missed'}"
