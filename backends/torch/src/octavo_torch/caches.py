"""A layer's keys and values on a torch device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from octavo.api import step_tree

__all__ = ["TorchCache"]


@step_tree
@dataclass(frozen=True)
class TorchCache:
    """Heads outside of tokens, so that one head's block is one piece of memory.

    Scales turn the codes of an 8-bit cache into numbers: one for each token and head, or one for
    each head; absent where the dtype needs none.
    """

    k: torch.Tensor  # [num_blocks, kv_heads, block_size, head_dim]
    v: torch.Tensor
    k_scale: torch.Tensor | None = None  # float32 [num_blocks, kv_heads, block_size] or [kv_heads]
    v_scale: torch.Tensor | None = None
