"""Others' prefill attention on contiguous tensors, each as a function that makes a call.

q [tokens, heads, head_dim], k and v [tokens, kv_heads, head_dim]; causal, scaled by the root of
the head dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch


def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Callable[[], object]:
    """Torch's own choice among cuDNN, flash and the rest."""
    each = [x.transpose(0, 1)[None].contiguous() for x in (q, k, v)]
    attention = torch.nn.functional.scaled_dot_product_attention
    return lambda: attention(*each, is_causal=True, enable_gqa=True)


def _cudnn(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Callable[[], object]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    call = sdpa(q, k, v)

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
    "torch SDPA": sdpa,
    "torch SDPA, cuDNN": _cudnn,
    "FlexAttention": _flex,
    "FlashInfer": _flashinfer,
}
