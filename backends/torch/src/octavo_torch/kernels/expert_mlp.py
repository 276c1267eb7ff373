"""A mixture of experts' feed-forward: the products of each token's experts, added by weight."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

from octavo_torch.kernels import grouped_matmul
from octavo_torch.kernels.kernel import Case, Kernel
from octavo_torch.kernels.moe_align import moe_align
from octavo_torch.kernels.tuning import launch_options

__all__ = ["KERNELS", "expert_mlp"]


@triton.jit
def _add_weighted(
    rows_ptr,  # [tokens * TOP_K, hidden]
    expert_ids_ptr,  # i32[tokens, TOP_K]
    routing_ptr,  # float32[tokens, TOP_K]
    out_ptr,  # [tokens, hidden]
    num_experts,
    hidden,
    TOP_K: tl.constexpr,
    TILE: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    total = tl.zeros((TILE,), tl.float32)
    for choice in range(TOP_K):
        entry = token * TOP_K + choice
        expert = tl.load(expert_ids_ptr + entry)
        width = tl.where((expert >= 0) & (expert < num_experts), hidden, 0)
        row = tl.load(rows_ptr + entry * hidden + column, mask=column < width, other=0.0)
        total += row.to(tl.float32) * tl.load(routing_ptr + entry)
    out = out_ptr + token * hidden + column
    tl.store(out, total.to(out_ptr.dtype.element_ty), mask=column < hidden)


def expert_mlp(
    x: torch.Tensor,  # [tokens, hidden]
    gate_up: torch.Tensor,  # [experts, 2 * inner, hidden]
    down: torch.Tensor,  # [experts, hidden, inner]
    expert_ids: torch.Tensor,  # i32[tokens, top_k]
    routing: torch.Tensor,  # float32[tokens, top_k]
) -> torch.Tensor:
    """Sum over a token's experts of ``routing * down(silu(gate) * up)`` [tokens, hidden].

    Added in the order of the choices. An expert outside of [0, experts) adds nothing.
    """
    num_tokens, hidden = x.shape
    num_experts, top_k = len(gate_up), expert_ids.shape[1]
    tile = grouped_matmul.rows_per_tile(expert_ids.numel(), num_experts, x.device)
    tiles = moe_align(expert_ids, num_experts, tile)
    inner = grouped_matmul.grouped_matmul(x, gate_up, *tiles, entries_per_row=top_k, silu_mul=True)
    rows = grouped_matmul.grouped_matmul(inner, down, *tiles)
    out = torch.empty_like(x)
    if not num_tokens:
        return out
    options = launch_options("expert_mlp", x.device)
    column_tile = options.pop("column_tile")
    _add_weighted[(num_tokens, triton.cdiv(hidden, column_tile))](
        rows, expert_ids, routing, out, num_experts, hidden,
        TOP_K=top_k, TILE=column_tile, **options,
    )  # fmt: skip
    return out


def _reference(
    x: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    expert_ids: torch.Tensor,
    routing: torch.Tensor,
) -> torch.Tensor:
    inner = grouped_matmul.reference(x, gate_up, expert_ids, silu_mul=True)
    entry_ids = expert_ids.view(-1, 1)
    rows = grouped_matmul.reference(inner, down, entry_ids, silu_mul=False).double().nan_to_num()
    weighted = rows.view(*expert_ids.shape, -1) * routing.double()[:, :, None]
    return weighted.sum(1).to(x.dtype)


def _case(
    tokens: int, top_k: int, num_experts: int, hidden: int, inner: int, *, ahead: bool = False
) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        def normal(*shape: int) -> torch.Tensor:
            numbers = torch.randn(shape, generator=generator, device=device)
            numbers = numbers / math.sqrt(shape[-1])
            return numbers.to(torch.bfloat16)

        ids = torch.randint(-1, num_experts, (tokens, top_k), generator=generator, device=device)
        routing = torch.rand((tokens, top_k), generator=generator, device=device)
        return {
            "x": normal(tokens, hidden) * hidden**0.5,
            "gate_up": normal(num_experts, 2 * inner, hidden),
            "down": normal(num_experts, hidden, inner),
            "expert_ids": ids.to(torch.int32),
            "routing": routing / top_k,
        }

    label = f"{tokens}x{top_k}-of-{num_experts}-{hidden}-{inner}"
    return Case(label, make, dtypes=("bfloat16",), ahead=ahead)


KERNELS = (
    Kernel(
        "expert_mlp",
        expert_mlp,
        _reference,
        (_case(1, 2, 3, 40, 24), _case(21, 3, 4, 72, 40), _case(64, 8, 128, 2048, 768, ahead=True)),
    ),
)
