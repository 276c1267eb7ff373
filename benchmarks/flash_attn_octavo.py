"""nano-vLLM's attention on Octavo's Triton kernels, for a torch whose own reads no paged cache.

Then both engines attend alike, and what differs is all else. The kernels have a block's keys by
head; nano-vLLM never looks into its cache, so its memory is simply read that way, and what it
writes goes through Octavo's kernel as well.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch

from octavo.api import AttentionParams
from octavo_torch.caches import TorchCache
from octavo_torch.kernels.write_cache import write_cache
from octavo_torch.plan import TorchPlan
from octavo_torch.triton_attention import paged_attention


def prepare(attention_module: Any, runner_class: Any) -> None:
    """Let nano-vLLM write as it will be read; its last block is set aside for padding."""
    allocate = runner_class.allocate_kv_cache

    def with_a_block_to_spare(runner: Any) -> None:
        allocate(runner)
        runner.config.num_kvcache_blocks -= 1

    runner_class.allocate_kv_cache = with_a_block_to_spare
    attention_module.store_kvcache = store


def store(
    k: torch.Tensor,  # [tokens, kv_heads, head_dim]
    v: torch.Tensor,
    k_cache: torch.Tensor,  # [blocks, block_size, kv_heads, head_dim]
    v_cache: torch.Tensor,
    slots: torch.Tensor,  # i32[tokens], -1 for padding
) -> None:
    """Padding goes to the last slot of the last block."""
    last = k_cache.shape[0] * k_cache.shape[1] - 1
    write_cache(_by_head(k_cache, v_cache), k, v, torch.where(slots < 0, last, slots))


def attend(
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
    """As flash_attn_stand_in.paged; a prompt without a table goes to torch's flash attention."""
    if table is None:
        return dense(q, k, v, starts_q, max_q, scale)
    table = table.clamp(min=0)
    unread = starts_q  # the kernels find a token's sequence by query_start
    plan = TorchPlan(
        table, unread, starts_q, lens_k.to(torch.int32), unread, unread,
        num_seqs=len(table), max_query_len=max_q, max_seq_len=max_k, block_size=k.shape[1],
    )  # fmt: skip
    return paged_attention(q, _by_head(k, v), plan, AttentionParams(scale))


def dense(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    scale: float,
) -> torch.Tensor:
    """Causal attention within each sequence."""
    return _dense()(q, k, v, starts, starts, longest, longest, scale=scale)


@functools.cache
def _dense() -> Any:
    """Torch's own; before it had ``enable_gqa``, grouped heads may have been taken, or not."""
    from torch.nn.attention.varlen import varlen_attn

    parameters = inspect.signature(varlen_attn).parameters
    causal = {"window_size": (-1, 0)} if "window_size" in parameters else {"is_causal": True}
    if "enable_gqa" in parameters:
        return functools.partial(varlen_attn, **causal, enable_gqa=True)
    grouped = functools.partial(varlen_attn, **causal)

    def repeated(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any, **more: Any) -> Any:
        each = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
        return grouped(q, *each, *rest, **more)

    return grouped if _are_equal(grouped, repeated) else repeated


def _are_equal(grouped: Any, repeated: Any) -> bool:
    """Tried on a few random tokens; a refusal counts as a difference."""
    q, k, v = (torch.randn(64, n, 128, device="cuda", dtype=torch.bfloat16) for n in (4, 2, 2))
    starts = torch.tensor([0, 24, 64], dtype=torch.int32, device="cuda")
    expected = repeated(q, k, v, starts, starts, 40, 40, scale=0.1)
    try:
        found = grouped(q, k, v, starts, starts, 40, 40, scale=0.1)
    except RuntimeError:
        return False
    return torch.allclose(found.float(), expected.float(), atol=0.02)


def _by_head(k_cache: torch.Tensor, v_cache: torch.Tensor) -> TorchCache:
    blocks, block_size, kv_heads, head_dim = k_cache.shape
    shape = (blocks, kv_heads, block_size, head_dim)
    return TorchCache(k_cache.view(shape), v_cache.view(shape))
