"""Attention by vllm-xpu-kernels over ``TorchCache``. Not yet run on a device.

Written against 0.1.16.2, whose public function is ``flash_attn_varlen_func``. It takes caches as
[num_blocks, block_size, kv_heads, head_dim], and its kernels find a row by the tensors' strides:
``block * (stride(0) / stride(1)) + offset``, each ``stride(1)`` numbers long, from ``kv_head *
stride(2)`` on. So Octavo's [num_blocks, kv_heads, block_size, head_dim] is given as a view; what
vLLM itself runs them on has heads inside of tokens, so ``vllm_trial`` asks before they serve.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from octavo.api import AttentionParams
from octavo_torch.caches import TorchCache
from octavo_torch.flashinfer_pages import Part, parts_of
from octavo_torch.plan import TorchPlan

__all__ = ["HEAD_DIMS", "VllmAttention"]

HEAD_DIMS = (64, 96, 128, 192, 256)
"""Those that its kernels are made for, without padding."""

_DTYPES = (torch.float16, torch.bfloat16)
_BLOCK_SIZES = (16, 32, 64, 128)

Attention = Callable[..., torch.Tensor]


class VllmAttention:
    """``paged_attention`` by the library, and by ``own`` where it has nothing for it.

    That is: steps that are recorded, since its kernels cannot be captured in XPU graphs; soft caps,
    which it ignores; windows and sinks, for which few builds have kernels, and since it multiplies
    what is behind a window by zero, NaN too; caches of another dtype than the queries'; float32.
    """

    def __init__(self, attend: Callable[..., Any], own: Attention) -> None:
        """``attend`` is ``vllm_xpu_kernels.flash_attn_interface.flash_attn_varlen_func``."""
        self._attend = attend
        self._own = own
        self._step: tuple[TorchPlan, _Step] | None = None

    def paged_attention(
        self,
        q: torch.Tensor,  # [tokens, heads, head_dim]
        cache: TorchCache,
        plan: TorchPlan,
        params: AttentionParams,
        sinks: torch.Tensor | None = None,  # [heads]
    ) -> torch.Tensor:
        """Attention of each token over its sequence's cached keys; padding's rows are not written.

        The values of slots behind a sequence's end are set to zero: the library multiplies them by
        zero, which keeps a NaN. They are in the block that the step has written to, so nobody's.
        """
        if sinks is not None or plan.is_bound or not _is_served(q, cache, params):
            return self._own(q, cache, plan, params, sinks)
        step = self._prepared(plan, cache.k.shape[2])
        step.clear_behind(cache.v)
        q, out = q.contiguous(), torch.empty_like(q, memory_format=torch.contiguous_format)
        for part in step.parts:
            self._attend(
                q[part.tokens],
                cache.k.transpose(1, 2),
                cache.v.transpose(1, 2),
                part.max_query_len,
                part.query_start,
                part.max_seq_len,
                seqused_k=part.seq_lens,
                softmax_scale=params.scale,
                causal=True,
                block_table=part.block_table,
                out=out[part.tokens],
            )
        return out

    def _prepared(self, plan: TorchPlan, block_size: int) -> _Step:
        """Made by the first layer of a step, for all."""
        if self._step is None or self._step[0] is not plan:
            self._step = (plan, _Step.of(plan, block_size))
        return self._step[1]


def _is_served(q: torch.Tensor, cache: TorchCache, params: AttentionParams) -> bool:
    is_plain = params.causal and params.window is None and params.soft_cap is None
    return (
        is_plain
        and q.dtype in _DTYPES
        and cache.k.dtype == q.dtype
        and cache.k_scale is None
        and cache.v_scale is None
        and q.shape[2] in HEAD_DIMS
        and cache.k.shape[2] in _BLOCK_SIZES
    )


@dataclass(frozen=True)
class _Part:
    """Sequences of one call: either all have one token, or the first has more."""

    tokens: slice
    query_start: torch.Tensor  # i32[seqs + 1], from 0 on
    seq_lens: torch.Tensor  # i32[seqs]
    block_table: torch.Tensor  # i32[seqs, blocks]
    max_query_len: int
    max_seq_len: int

    @classmethod
    def of(cls, plan: TorchPlan, part: Part, lengths: torch.Tensor) -> _Part:
        """``lengths`` are those of all the plan's sequences."""
        first, end = part.first_seq, part.end_seq
        starts = plan.host_query_start[first : end + 1]
        return cls(
            tokens=part.tokens,
            query_start=plan.query_start[first : end + 1] - starts[0],
            seq_lens=lengths[first:end],
            block_table=plan.block_table[first:end],
            max_query_len=max(after - start for start, after in pairwise(starts)),
            max_seq_len=max(1, *plan.host_seq_lens[first:end]),
        )


@dataclass(frozen=True)
class _Step:
    """What all layers of a step share."""

    parts: tuple[_Part, ...]
    last_blocks: torch.Tensor  # i64[seqs]: of each sequence, the block that its last token is in
    is_behind: torch.Tensor  # bool[seqs, 1, block_size, 1]: that block's slots behind the end

    @classmethod
    def of(cls, plan: TorchPlan, block_size: int) -> _Step:
        """Padding counts as one token in block 0, which may hold anything."""
        lengths = plan.seq_lens.clamp(min=1)
        last = lengths - 1
        columns = (last // block_size).long()[:, None]
        offsets = torch.arange(block_size, dtype=torch.int32, device=last.device)
        return cls(
            parts=tuple(_Part.of(plan, part, lengths) for part in parts_of(plan)),
            last_blocks=plan.block_table.gather(1, columns)[:, 0].long(),
            is_behind=(offsets > (last % block_size)[:, None])[:, None, :, None],
        )

    def clear_behind(self, stored: torch.Tensor) -> None:
        """Zeros in those slots of ``stored`` [num_blocks, kv_heads, block_size, head_dim]."""
        blocks = stored.index_select(0, self.last_blocks)
        stored.index_copy_(0, self.last_blocks, blocks.masked_fill_(self.is_behind, 0))
