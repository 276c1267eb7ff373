"""Attention alone: decode against the copy bandwidth, prefill against the matmul rate and torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from statistics import median
from typing import Any

import numpy as np
import torch

from gpu_clock import Clock
from gpu_settings import AttentionShape, Row, Settings, decode_shape, prefill_shape
from octavo.api import AttentionParams, GroupBatch, KVSpec, StepBatch

DECODE = "decode attention"
PREFILL = "prefill attention"
CACHE_DTYPES = ("bfloat16", "float8_e4m3fn", "int8")
DECODE_AIM, PREFILL_AIM, PEER_AIM = 0.85, 0.70, 0.90
CACHES_IN_TURN = 4  # so that no call finds its keys in the device's own caches


def run(settings: Settings) -> Iterator[Row]:
    from octavo.config import EngineConfig
    from octavo.open_device import open_device

    config = EngineConfig(
        model="none", device=settings.device, backend=settings.backend, quiet=True
    )
    backend = open_device(config).backend
    clock = Clock(settings.torch_device)
    with torch.inference_mode():
        for dtype in CACHE_DTYPES:
            if dtype in backend.caps.kv_dtypes:
                yield _decode(settings, backend, clock, dtype)
            else:
                yield {"table": DECODE, "shape": "", "cache": dtype, "why": "not offered here"}
        yield from _prefill(settings, backend, clock)


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


def _filled(settings: Settings, backend: Any, shape: AttentionShape, dtype: str) -> Any:
    """A cache with random keys and values for the whole context, written as a prefill would."""
    spec = KVSpec("full", shape.num_kv_heads, shape.head_dim, dtype)
    block_size = backend.caps.block_sizes[0]
    num_blocks = 1 + shape.num_seqs * -(-shape.context_len // block_size)
    cache = backend.make_kv(spec, num_blocks, block_size)
    batch = step_batch(shape, block_size, shape.context_len, seed=0)
    plan = backend.plan(batch, block_size)[0]
    size = (len(batch.positions), shape.num_kv_heads, shape.head_dim)
    k, v = (_random(size, settings) for _ in range(2))
    return backend.ops.write_kv(cache, k, v, plan), k, v


def _random(size: tuple[int, ...], settings: Settings) -> torch.Tensor:
    return torch.randn(size, device=settings.torch_device, dtype=torch.bfloat16)


def _decode(settings: Settings, backend: Any, clock: Clock, dtype: str) -> Row:
    shape = decode_shape(settings)
    block_size = backend.caps.block_sizes[0]
    params = AttentionParams(scale=1 / math.sqrt(shape.head_dim))
    caches = [_filled(settings, backend, shape, dtype)[0] for _ in range(CACHES_IN_TURN)]
    plan = backend.plan(step_batch(shape, block_size, 1, seed=0), block_size)[0]
    q = _random((shape.num_seqs, shape.num_heads, shape.head_dim), settings)

    def all_caches() -> None:
        for cache in caches:
            backend.ops.paged_attention(q, cache, plan, params)

    calls = {"octavo": _replayed(all_caches, settings)}
    seconds = median(clock.alternating(calls, _rounds(settings))["octavo"]) / len(caches)
    num_bytes = kv_bytes(shape, dtype)
    row = {"table": DECODE, "shape": shape.label, "cache": dtype, "microseconds": 1e6 * seconds}
    row["GB/s"] = num_bytes / seconds / 1e9
    if settings.copy_bytes_per_s:
        share = num_bytes / seconds / settings.copy_bytes_per_s
        row |= {"of the copy": _percent(share), "aim": _met(share, DECODE_AIM)}
    return row


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


def _prefill(settings: Settings, backend: Any, clock: Clock) -> Iterator[Row]:
    shape = prefill_shape(settings)
    block_size = backend.caps.block_sizes[0]
    params = AttentionParams(scale=1 / math.sqrt(shape.head_dim))
    cache, k, v = _filled(settings, backend, shape, "bfloat16")
    plan = backend.plan(step_batch(shape, block_size, shape.context_len, seed=0), block_size)[0]
    q = _random((shape.context_len, shape.num_heads, shape.head_dim), settings)
    calls = {"octavo": lambda: backend.ops.paged_attention(q, cache, plan, params)}
    failed = {}
    for name, make in PEERS.items():
        try:
            call = make(q, k, v)
            call()
        except Exception as error:  # noqa: BLE001 - a peer that cannot run here is a line, no end
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[:1]}"
        else:
            calls[name] = call
    taken = clock.alternating(calls, _rounds(settings))
    yield from prefill_rows(settings, shape, taken)
    for name, why in failed.items():
        yield {"table": PREFILL, "shape": shape.label, "who": name, "why": why}


def prefill_rows(
    settings: Settings, shape: AttentionShape, taken: Mapping[str, list[float]]
) -> Iterator[Row]:
    """Causal: half of the scores are computed, and counted."""
    pairs = shape.context_len * (shape.context_len + 1) / 2
    flop = 4.0 * shape.num_heads * shape.head_dim * pairs
    best = min((median(times) for name, times in taken.items() if name != "octavo"), default=None)
    for name, times in taken.items():
        seconds = median(times)
        row = {"table": PREFILL, "shape": shape.label, "who": name, "milliseconds": 1e3 * seconds}
        row["TFLOP/s"] = flop / seconds / 1e12
        if settings.matmul_flop_per_s:
            share = flop / seconds / settings.matmul_flop_per_s
            row["of the matmul"] = _percent(share)
            if name == "octavo":
                row["aim"] = _met(share, PREFILL_AIM)
        if name == "octavo" and best is not None:
            row |= {"of the best peer": best / seconds, "aim of it": _met(best / seconds, PEER_AIM)}
        yield row


def _sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Callable[[], object]:
    """Torch's own choice among cuDNN, flash and the rest."""
    each = [x.transpose(0, 1)[None].contiguous() for x in (q, k, v)]
    attention = torch.nn.functional.scaled_dot_product_attention
    return lambda: attention(*each, is_causal=True, enable_gqa=True)


def _cudnn(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Callable[[], object]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    call = _sdpa(q, k, v)

    def pinned() -> object:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return call()

    return pinned


def _flex(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Callable[[], object]:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if q.device.type == "cpu":
        raise RuntimeError("compiled for GPUs only")
    each = [x.transpose(0, 1)[None].contiguous() for x in (q, k, v)]
    length = len(q)
    mask = create_block_mask(
        lambda _batch, _head, query, key: query >= key, None, None, length, length, device=q.device
    )
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda: compiled(*each, block_mask=mask, enable_gqa=True)


def _flashinfer(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Callable[[], object]:
    if find_spec("flashinfer") is None:
        raise RuntimeError("not installed")
    import flashinfer

    return lambda: flashinfer.single_prefill_with_kv_cache(q, k, v, causal=True)


PEERS = {
    "torch SDPA": _sdpa,
    "torch SDPA, cuDNN": _cudnn,
    "FlexAttention": _flex,
    "FlashInfer": _flashinfer,
}


def _rounds(settings: Settings) -> int:
    return 1 if settings.quick or settings.rehearse else 5


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _met(share: float, aim: float) -> str:
    return f"{100 * aim:.0f} %: {'met' if share >= aim else 'missed'}"
