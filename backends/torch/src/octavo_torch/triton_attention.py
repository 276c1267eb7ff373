"""Which attention kernel serves which sequences of a step."""

from __future__ import annotations

import torch

from octavo.api import AttentionParams
from octavo_torch.caches import TorchCache
from octavo_torch.kernels.attention_decode import attention_decode
from octavo_torch.kernels.attention_prefill import attention_prefill
from octavo_torch.plan import TorchPlan

__all__ = ["paged_attention"]


def paged_attention(
    q: torch.Tensor,  # [tokens, heads, head_dim]
    cache: TorchCache,
    plan: TorchPlan,
    params: AttentionParams,
    sinks: torch.Tensor | None = None,  # [heads]
) -> torch.Tensor:
    """Attention of each token over its sequence's cached keys, by Triton kernels.

    Sequences with one query go to the kernel that splits contexts, wherever they stand in the
    batch; all others to the tiled one. Padding's rows are not written.
    """
    if plan.max_query_len <= 1:
        return attention_decode(q, cache, plan, params, sinks)
    out = q.new_empty(q.shape)
    mixed = q.shape[0] < plan.num_seqs * plan.max_query_len
    if mixed:
        attention_decode(q, cache, plan, params, sinks, out=out)
    return attention_prefill(q, cache, plan, params, sinks, out=out, skip_single=mixed)
