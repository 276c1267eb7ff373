"""Asks vllm-xpu-kernels for attention whose result is known, before it serves."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

import torch

from octavo.api import AttentionParams, BackendError
from octavo_torch import attention
from octavo_torch.caches import TorchCache
from octavo_torch.plan import TorchPlan
from octavo_xpu.vllm_attention import VllmAttention

__all__ = ["try_attention"]

_TOLERANCE = 0.02  # of float16 results of about 1, as the library's own tests have it
_HEADS, _KV_HEADS, _HEAD_DIM, _NUM_BLOCKS = 4, 2, 128, 12
_NEW_TOKENS = {"decodes": (1, 1), "prompts": (3, 20)}
_SEQ_LENS = (21, 70)


def try_attention(served: VllmAttention, device: torch.device) -> None:
    """Raise BackendError unless it computes what torch does over the same few blocks.

    Prompts and decodes, in blocks of 16 and 64; takes milliseconds, once, when a model is loaded.
    """
    for name, q, cache, plan in _steps(device):
        params = AttentionParams(scale=_HEAD_DIM**-0.5)
        expected = attention.paged_attention(q, cache, plan, params).float()
        try:
            found = served.paged_attention(q, cache, plan, params).float()
            error = (found - expected).abs().max().item()
        except RuntimeError as failure:
            said = next(iter(str(failure).splitlines()), "no message")
            raise BackendError(f"vllm-xpu-kernels cannot run on {device}: {said}") from failure
        if not error <= _TOLERANCE:
            raise BackendError(
                f"vllm-xpu-kernels {metadata.version('vllm-xpu-kernels')} is off by {error:g} "
                f"from torch's attention in {name} over blocks of {plan.block_size}; please "
                "report it"
            )


def _steps(device: torch.device) -> Iterator[tuple[str, torch.Tensor, TorchCache, TorchPlan]]:
    for block_size in (16, 64):
        for name, new_tokens in _NEW_TOKENS.items():
            draw = torch.Generator().manual_seed(block_size)
            shape = (_NUM_BLOCKS, _KV_HEADS, block_size, _HEAD_DIM)
            k, v = (torch.randn(shape, generator=draw).to(device, torch.float16) for _ in "kv")
            q_shape = (sum(new_tokens), _HEADS, _HEAD_DIM)
            q = torch.randn(q_shape, generator=draw).to(device, torch.float16)
            yield name, q, TorchCache(k, v), _plan(new_tokens, block_size, device)


def _plan(new_tokens: tuple[int, ...], block_size: int, device: torch.device) -> TorchPlan:
    starts = (0, new_tokens[0], sum(new_tokens))
    positions = [
        length - new + i
        for length, new in zip(_SEQ_LENS, new_tokens, strict=True)
        for i in range(new)
    ]
    seqs = [seq for seq, new in enumerate(new_tokens) for _ in range(new)]
    num_columns = -(-max(_SEQ_LENS) // block_size)
    blocks = list(range(_NUM_BLOCKS - 1, _NUM_BLOCKS - 1 - 2 * num_columns, -1))

    def put(numbers: object) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int32, device=device)

    return TorchPlan(
        block_table=put([blocks[:num_columns], blocks[num_columns:]]),
        slots=put([0] * len(seqs)),
        query_start=put(starts),
        seq_lens=put(_SEQ_LENS),
        token_seqs=put(seqs),
        positions=put(positions),
        num_seqs=len(new_tokens),
        max_query_len=max(new_tokens),
        max_seq_len=max(_SEQ_LENS),
        host_query_start=starts,
        host_seq_lens=_SEQ_LENS,
        block_size=block_size,
    )
