"""Ops of Intel's extension for PyTorch: paged attention over ``TorchCache``, rotation, RMSNorm.

The extension ended with version 2.8 (archived in March 2026); this serves where it is installed.
Its product of a gate is left out: it is compiled by Inductor at its first call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import intel_extension_for_pytorch as ipex
import torch

from octavo.api import AttentionParams
from octavo_torch import attention
from octavo_torch.cache_codes import write_tokens
from octavo_torch.caches import TorchCache
from octavo_torch.ops import TorchOps
from octavo_torch.plan import TorchPlan

__all__ = ["load_ipex_ops"]

_Paged: Any = ipex.llm.modules.PagedAttention
_functional: Any = ipex.llm.functional
_torch_ops = TorchOps()


def load_ipex_ops(backend: Any) -> Mapping[str, Callable[..., Any]]:
    """The ops that it serves, on any device of torch."""
    del backend
    return {
        "write_kv": write_kv,
        "paged_attention": paged_attention,
        "rope_attend": rope_attend,
        "rms_norm": rms_norm,
    }


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """``x / sqrt(mean(x²) + eps) * weight`` over the last axis."""
    normed: torch.Tensor = _functional.rms_norm(x.contiguous(), weight, eps)
    return normed


def rope_attend(
    q: torch.Tensor,  # [tokens, heads, head_dim]
    k: torch.Tensor,  # [tokens, kv_heads, head_dim]
    v: torch.Tensor,
    cos: torch.Tensor,  # float32 [tokens, half]
    sin: torch.Tensor,
    cache: TorchCache,
    plan: TorchPlan,
    params: AttentionParams,
    sinks: torch.Tensor | None = None,  # [heads]
) -> tuple[torch.Tensor, TorchCache]:
    """Rotation of queries and keys in one call, the write to the cache, and attention."""
    if 2 * cos.shape[1] < q.shape[2]:  # the extension turns whole heads
        q, k = _torch_ops.rope(q, cos, sin), _torch_ops.rope(k, cos, sin)
    else:
        # It turns them in place.
        q, k = (part.clone(memory_format=torch.contiguous_format) for part in (q, k))
        q, k = _functional.rotary_embedding(q, k, sin, cos, q.shape[2], True)  # noqa: FBT003
    cache = write_kv(cache, k, v, plan)
    return paged_attention(q, cache, plan, params, sinks), cache


def write_kv(cache: TorchCache, k: torch.Tensor, v: torch.Tensor, plan: TorchPlan) -> TorchCache:
    """Store K and V of this step's tokens at the plan's slots, in place."""
    if not _is_plain(cache, k):
        return write_tokens(cache, k, v, plan.slots)
    _Paged.reshape_and_cache(k.contiguous(), v.contiguous(), cache.k, cache.v, plan.slots.long())
    return cache


def paged_attention(
    q: torch.Tensor,  # [tokens, heads, head_dim]
    cache: TorchCache,
    plan: TorchPlan,
    params: AttentionParams,
    sinks: torch.Tensor | None = None,  # [heads]
) -> torch.Tensor:
    """Attention of each token over its sequence's cached keys.

    The extension multiplies what is behind a window by zero, NaN too. So windows are torch's, and
    so are sinks, attention that is not causal, and caches of another dtype than the queries'.
    """
    is_served = params.causal and params.window is None
    if sinks is not None or not is_served or not _is_plain(cache, q):
        return attention.paged_attention(q, cache, plan, params, sinks)
    attended = torch.zeros_like(q)
    num_decodes = _num_decodes(plan)
    if num_decodes:
        _decode(q[:num_decodes], attended[:num_decodes], cache, plan, params)
    if plan.host_query_start[num_decodes] < plan.host_query_start[-1]:
        _prefill(q, attended, cache, plan, params, num_decodes)
    return attended


def _is_plain(cache: TorchCache, tensor: torch.Tensor) -> bool:
    return cache.k.dtype == tensor.dtype


def _num_decodes(plan: TorchPlan) -> int:
    """Sequences before the first that has not exactly one token."""
    starts, count = plan.host_query_start, 0
    while count < plan.num_seqs and starts[count + 1] == count + 1:
        count += 1
    return count


def _decode(
    q: torch.Tensor,
    attended: torch.Tensor,
    cache: TorchCache,
    plan: TorchPlan,
    params: AttentionParams,
) -> None:
    num_seqs, heads, _ = q.shape
    kv_heads, block_size = cache.k.shape[1:3]
    lengths = plan.seq_lens[:num_seqs]
    _Paged.single_query_cached_kv_attention(
        attended,
        q.contiguous(),
        cache.k,
        cache.v,
        torch.arange(kv_heads, dtype=torch.int32, device=q.device).repeat_interleave(
            heads // kv_heads
        ),
        params.scale,
        plan.block_table[:num_seqs].contiguous(),
        lengths,
        block_size,
        max(plan.host_seq_lens[:num_seqs]),
        None,
        -1,
        1.0,
        1.0,
        params.soft_cap or -1.0,
    )


def _prefill(
    q: torch.Tensor,
    attended: torch.Tensor,
    cache: TorchCache,
    plan: TorchPlan,
    params: AttentionParams,
    first_seq: int,
) -> None:
    starts = plan.host_query_start[first_seq:]
    first, last = starts[0], starts[-1]
    lengths = plan.host_seq_lens[first_seq:]
    key_starts = torch.zeros(len(lengths) + 1, dtype=torch.int32, device=q.device)
    key_starts[1:] = torch.cumsum(plan.seq_lens[first_seq:], 0)
    _Paged.flash_attn_varlen_func(
        attended[first:last],
        q[first:last].contiguous(),
        cache.k,
        cache.v,
        plan.query_start[first_seq:] - first,
        key_starts,
        max(end - start for start, end in pairwise(starts)),
        max(lengths),
        params.scale,
        True,  # noqa: FBT003 - its own order of arguments
        plan.block_table[first_seq:].contiguous(),
        None,
        -1,
        -1,
        softcap=params.soft_cap or -1.0,
    )
