"""flash-attn's two functions that nano-vLLM calls, on what is there.

torch's flash attention reads a paged cache where its ``varlen_attn`` takes a block table. An older
torch serves prompts, and Octavo's Triton kernels the cache (flash_attn_octavo.py). Without a GPU
the context is gathered and given to SDPA: right, but slow, and not to be captured in a graph.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch


@dataclass(frozen=True)
class Serving:
    """Who computes attention, and how it may be used."""

    attend: Callable[..., torch.Tensor]
    name: str
    is_graph_safe: bool = True
    is_octavo: bool = False
    """nano-vLLM's writes to its cache have to be Octavo's then, too."""


def install(serving: Serving | None = None) -> Serving:
    """Put a module ``flash_attn`` in place; ``serving`` is what serves it, by default the best."""
    serving = serving or choose()
    serve = serving.attend

    def flash_attn_varlen_func(q: Any, k: Any, v: Any, **settings: Any) -> torch.Tensor:
        table = settings.get("block_table")
        starts_k = settings["cu_seqlens_k"]
        return serve(
            q, k, v, settings["cu_seqlens_q"], settings["max_seqlen_q"], settings["max_seqlen_k"],
            starts_k.diff(), table, settings["softmax_scale"],
        )  # fmt: skip

    def flash_attn_with_kvcache(q: Any, k: Any, v: Any, **settings: Any) -> torch.Tensor:
        table = settings["block_table"]
        starts = torch.arange(len(q) + 1, dtype=torch.int32, device=q.device)
        longest = table.shape[1] * k.shape[1]
        lens = settings["cache_seqlens"]
        out = serve(q[:, 0], k, v, starts, 1, longest, lens, table, settings["softmax_scale"])
        return out[:, None]

    module = ModuleType("flash_attn")
    vars(module).update(
        flash_attn_varlen_func=flash_attn_varlen_func,
        flash_attn_with_kvcache=flash_attn_with_kvcache,
    )
    sys.modules["flash_attn"] = module
    return serving


def choose() -> Serving:
    """Torch's paged attention, or Octavo's on a GPU, or gathered contexts."""
    slow = Serving(gathered, "torch SDPA over gathered contexts", is_graph_safe=False)
    if not torch.cuda.is_available() or find_spec("torch.nn.attention.varlen") is None:
        return slow
    from torch.nn.attention.varlen import varlen_attn

    if {"block_table", "enable_gqa"} <= set(inspect.signature(varlen_attn).parameters):
        return Serving(paged, "torch varlen_attn")
    if find_spec("triton") is None:
        return slow
    import flash_attn_octavo

    name = "torch varlen_attn for prompts, Octavo's Triton kernels for the cache"
    return Serving(flash_attn_octavo.attend, name, is_octavo=True)


def paged(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts_q: torch.Tensor,
    max_q: int,
    max_k: int,
    lens_k: torch.Tensor,
    table: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """``k`` and ``v`` are the cache [blocks, block_size, kv_heads, head_dim] if there is a table.

    Rows of q [tokens, heads, head_dim] that ``starts_q`` [seqs + 1] divides end at the end of each
    sequence's ``lens_k`` keys; causal.
    """
    from torch.nn.attention.varlen import varlen_attn

    is_causal = {"window_size": (-1, 0), "scale": scale, "enable_gqa": True}
    if table is None:
        return varlen_attn(q, k, v, starts_q, starts_q, max_q, max_k, **is_causal)
    # An entry that no sequence reaches is -1 in nano-vLLM's tables: any block will do.
    table = table.clamp(min=0)
    paging = {"seqused_k": lens_k.to(torch.int32), "block_table": table}
    return varlen_attn(q, k, v, starts_q, None, max_q, max_k, **is_causal, **paging)


def gathered(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts_q: torch.Tensor,
    max_q: int,
    max_k: int,
    lens_k: torch.Tensor,
    table: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """As ``paged``, one sequence after the other."""
    del max_q, max_k
    out = torch.empty_like(q)
    begins, lens = starts_q.tolist(), lens_k.tolist()
    begin_k = 0
    for index, num_keys in enumerate(lens):
        rows = slice(begins[index], begins[index + 1])
        if table is None:
            keys, values = (x[begin_k : begin_k + num_keys] for x in (k, v))
        else:
            blocks = table[index, : -(-num_keys // k.shape[1])].long()
            keys, values = (x[blocks].flatten(0, 1)[:num_keys] for x in (k, v))
        begin_k += num_keys
        if num_keys:
            out[rows] = _one(q[rows], keys, values, scale)
    return out


def _one(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    query, key, value = (x.transpose(0, 1) for x in (q, k, v))
    shape = (len(q), len(k))
    mask = torch.ones(shape, dtype=torch.bool, device=q.device).tril(len(k) - len(q))
    attention = torch.nn.functional.scaled_dot_product_attention
    each = (x[None] for x in (query, key, value))
    return attention(*each, attn_mask=mask, scale=scale, enable_gqa=True)[0].transpose(0, 1)
