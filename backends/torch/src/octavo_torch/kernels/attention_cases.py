"""The batches that attention kernels are checked in, and attention in plain torch."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from octavo.api import AttentionParams
from octavo_torch.caches import TorchCache
from octavo_torch.kernels.kernel import Case
from octavo_torch.plan import TorchPlan

__all__ = ["DECODE_CASES", "PREFILL_CASES", "attention_reference"]

# (tokens in the cache before this step, tokens in this step); a sequence of padding has as many
# fewer before it, so that its length is 0.
Seqs = tuple[tuple[int, int], ...]


def attention_reference(
    q: torch.Tensor,
    cache: TorchCache,
    plan: TorchPlan,
    params: AttentionParams,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sequence by sequence, dense, in float64."""
    out = torch.zeros_like(q)
    starts = plan.query_start.tolist()
    for seq, ((start, end), length) in enumerate(
        zip(pairwise(starts), plan.seq_lens.tolist(), strict=True)
    ):
        if end > start:
            k, v = _cached(cache, plan.block_table[seq], length)
            out[start:end] = _dense(q[start:end].double(), k, v, params, sinks).to(q.dtype)
    return out


def _cached(
    cache: TorchCache, blocks: torch.Tensor, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """K and V of a sequence, float64 [kv_heads, keys, head_dim]."""
    pair = []
    for stored, scale in ((cache.k, cache.k_scale), (cache.v, cache.v_scale)):
        values = stored[blocks.long()].double()  # [blocks, kv_heads, block_size, head_dim]
        if scale is not None and scale.ndim == 1:
            values = values * scale.double()[:, None, None]
        elif scale is not None:
            values = values * scale[blocks.long()].double()[..., None]
        pair.append(values.transpose(0, 1).flatten(1, 2)[:, :length])
    return pair[0], pair[1]


def _dense(
    q: torch.Tensor,  # [queries, heads, head_dim]
    k: torch.Tensor,  # [kv_heads, keys, head_dim]
    v: torch.Tensor,
    params: AttentionParams,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    group, keys = q.shape[1] // k.shape[0], k.shape[1]
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    scores = torch.einsum("qhd,hkd->hqk", q, k) * params.scale
    if params.soft_cap is not None:
        scores = params.soft_cap * torch.tanh(scores / params.soft_cap)
    ahead = torch.arange(keys, device=q.device) - torch.arange(
        keys - q.shape[0], keys, device=q.device
    ).unsqueeze(1)
    visible = ahead <= 0 if params.causal else ahead == ahead  # noqa: PLR0124
    if params.window is not None:
        visible = visible & (ahead.abs() < params.window)
    scores = scores.masked_fill(~visible, float("-inf"))
    if sinks is not None:
        column = sinks.double()[:, None, None].expand(-1, q.shape[0], 1)
        scores = torch.cat([scores, column], dim=-1)
    return torch.einsum("hqk,hkd->qhd", scores.softmax(-1)[..., :keys], v)


def _case(
    seqs: Seqs,
    *,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 16,
    block_size: int = 16,
    dtype: str = "bfloat16",
    kv_dtype: str | None = None,
    window: int | None = None,
    soft_cap: float | None = None,
    causal: bool = True,
    sinks: bool = False,
    expects: str | None = None,
) -> Case:
    """``expects`` makes a case that is compiled only."""
    params = AttentionParams(head_dim**-0.5, window, soft_cap, causal)
    stored = kv_dtype or dtype

    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        plan = _plan(seqs, block_size, device)
        # A case that is only compiled reads no keys: two blocks are enough.
        written = _written(plan, block_size) if expects is None else torch.ones(2, block_size) > 0
        shape = (len(written), kv_heads, block_size, head_dim)

        def normal(*sizes: int) -> torch.Tensor:
            return torch.randn(sizes, generator=generator, device=device)

        tokens = sum(new for _, new in seqs)
        sink_scores = normal(heads).to(getattr(torch, dtype)) if sinks else None
        return {
            "q": normal(tokens, heads, head_dim).to(getattr(torch, dtype)),
            "cache": _cache(normal, shape, stored, written),
            "plan": plan,
            "params": params,
            "sinks": sink_scores,
        }

    lengths = "+".join(f"{past}:{new}" for past, new in seqs[:5])
    label = f"{lengths} {heads}/{kv_heads}x{head_dim} block{block_size} {dtype}"
    if kv_dtype:
        label += f" kv={kv_dtype}"
    label += f" window={window}" * bool(window) + f" cap={soft_cap}" * bool(soft_cap)
    label += " ahead" * (not causal) + " sinks" * sinks
    wanted = {} if expects is None else {"cuda": expects, "hip": "matrix"}
    return Case(label, make, dtypes=(dtype,), ahead=expects is not None, expects=wanted)


def _plan(seqs: Seqs, block_size: int, device: torch.device) -> TorchPlan:
    """Blocks from the pool's end backwards, so that none stands where its number says."""
    lengths = [past + new for past, new in seqs]
    counts = [-(-length // block_size) for length in lengths]
    table = torch.zeros((len(seqs), max(1, *counts)), dtype=torch.int32)
    free = sum(counts)
    for row, count in enumerate(counts):
        table[row, :count] = torch.arange(free, free - count, -1)
        free -= count
    start = torch.tensor([0, *(new for _, new in seqs)], dtype=torch.int32).cumsum(0)
    spans = [(row, max(past, 0) + at) for row, (past, new) in enumerate(seqs) for at in range(new)]
    token_seqs, positions = torch.tensor(spans, dtype=torch.int32).T.contiguous()
    blocks = table[token_seqs.long(), (positions // block_size).long()]
    arrays = {
        "block_table": table,
        "slots": blocks * block_size + positions % block_size,
        "query_start": start.to(torch.int32),
        "seq_lens": torch.tensor(lengths, dtype=torch.int32),
        "token_seqs": token_seqs,
        "positions": positions,
    }
    return TorchPlan(
        **{name: array.to(device) for name, array in arrays.items()},
        num_seqs=len(seqs),
        max_query_len=max(new for _, new in seqs),
        max_seq_len=max(lengths),
    )


def _written(plan: TorchPlan, block_size: int) -> torch.Tensor:
    """bool[num_blocks, block_size]: which places hold keys of some sequence."""
    written = torch.zeros((int(plan.block_table.max()) + 1, block_size), dtype=torch.bool)
    for blocks, length in zip(plan.block_table, plan.seq_lens.tolist(), strict=True):
        key = torch.arange(length)
        written[blocks[key // block_size].long(), key % block_size] = True
    return written


def _cache(normal: Any, shape: tuple[int, ...], dtype: str, written: torch.Tensor) -> TorchCache:
    """Unit values; NaN, where there is such a thing, in block 0 and all else that is nobody's."""
    nobody = ~written.to(normal(1).device)
    pair = [normal(*shape) for _ in range(2)]
    if dtype == "int8":
        k, v = ((values * 60).clamp(-127, 127).to(torch.int8) for values in pair)
        scales = [(normal(*shape[:3]) * 0.1 + 1) / 60 for _ in range(2)]
        for scale in scales:
            scale.masked_fill_(nobody[:, None], float("nan"))
        return TorchCache(k, v, *scales)
    for values in pair:
        values.masked_fill_(nobody[:, None, :, None], float("nan"))
    k, v = (values.to(getattr(torch, dtype)) for values in pair)
    if not dtype.startswith("float8"):
        return TorchCache(k, v)
    return TorchCache(k, v, *((normal(shape[1]) * 0.1 + 1).abs() for _ in range(2)))


_MIXED: Seqs = ((37, 1), (0, 0), (0, 21), (70, 9), (3, 1))
_PADDED: Seqs = ((19, 7), (-1, 1), (-11, 11))
_ONES: Seqs = ((36, 1), (0, 1), (79, 1))

PREFILL_CASES = (
    _case(_MIXED),
    _case(_MIXED, dtype="float32", heads=6, head_dim=24, window=17),
    _case(_MIXED, dtype="float16", heads=3, kv_heads=1, soft_cap=3.0, sinks=True),
    _case(_MIXED, dtype="float32", causal=False, window=20, kv_heads=4),
    _case(_PADDED, heads=8, kv_heads=1),
    _case(_PADDED, dtype="float32", window=5, sinks=True),
    _case(_PADDED, causal=False, window=5, block_size=32),
    # Blocks of whole tiles, that are loaded as such: see tuned.toml.
    _case(_MIXED, causal=False, block_size=32, head_dim=80),
    _case(_MIXED, block_size=32, dtype="float16", window=17, heads=3, kv_heads=1, sinks=True),
    _case(_MIXED, block_size=32, kv_dtype="float8_e4m3fn"),
    _case(_MIXED, block_size=32, kv_dtype="int8"),
    _case(_MIXED, kv_dtype="float8_e4m3fn"),
    _case(_MIXED, kv_dtype="float8_e5m2", dtype="float16"),
    _case(_MIXED, kv_dtype="int8", window=17, sinks=True),
    # Queries and keys in parts.
    _case(_MIXED, head_dim=80, window=17, heads=3, kv_heads=1),
    _case(_MIXED, head_dim=80, kv_dtype="int8"),
    _case(((0, 8192),), heads=32, kv_heads=8, head_dim=128, expects="matrix"),
    _case(((0, 4096),) * 2, heads=32, kv_heads=8, head_dim=128, block_size=64, expects="matrix"),
    _case(((0, 8192),), heads=8, kv_heads=4, head_dim=256, window=1024, expects="matrix"),
    _case(
        ((0, 8192),), heads=32, kv_heads=8, head_dim=128, kv_dtype="float8_e4m3fn", expects="matrix"
    ),
    _case(((0, 8192),), heads=16, kv_heads=8, head_dim=128, kv_dtype="int8", expects="matrix"),
)
DECODE_CASES = (
    _case(_ONES),
    _case(_ONES, dtype="float32", heads=6, head_dim=24, window=17),
    _case(_ONES, dtype="float16", heads=3, kv_heads=1, soft_cap=3.0, sinks=True),
    _case(((70, 1), (-1, 1)), window=60),
    _case(((70, 1), (-1, 1)), dtype="float32", sinks=True),
    _case(_ONES, kv_dtype="float8_e4m3fn", block_size=32, head_dim=80),
    _case(_ONES, kv_dtype="float8_e5m2", dtype="float16"),
    _case(_ONES, kv_dtype="int8", window=40, sinks=True),
    _case(((4095, 1),) * 64, heads=32, kv_heads=8, head_dim=128, expects="matrix"),
    _case(
        ((4095, 1),) * 64, heads=32, kv_heads=8, head_dim=128, kv_dtype="float8_e4m3fn",
        expects="matrix",
    ),
    _case(((4095, 1),) * 64, heads=16, kv_heads=8, head_dim=128, kv_dtype="int8", expects="matrix"),
)  # fmt: skip
