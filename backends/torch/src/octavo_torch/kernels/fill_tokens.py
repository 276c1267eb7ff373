"""Token ids that the host had not read yet when it built the step."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from octavo_torch.kernels.kernel import Case, Kernel
from octavo_torch.kernels.tuning import launch_options

__all__ = ["KERNELS", "fill_tokens"]


@triton.jit(do_not_specialize=["num_tokens"])
def _fill_tokens(token_ids_ptr, sampled_ptr, sources_ptr, out_ptr, num_tokens, TILE: tl.constexpr):
    token = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = token < num_tokens
    source = tl.load(sources_ptr + token, mask=inside, other=0)
    known = tl.load(token_ids_ptr + token, mask=inside, other=0)
    drawn = tl.load(sampled_ptr + source - 1, mask=source > 0, other=0)
    tl.store(out_ptr + token, tl.where(source > 0, drawn, known), mask=inside)


def fill_tokens(
    token_ids: torch.Tensor,  # i32[tokens]
    sampled: torch.Tensor,  # i32[rows]
    sources: torch.Tensor,  # i32[tokens]
) -> torch.Tensor:
    """i32[tokens]: ``sampled[sources[i] - 1]`` where ``sources[i]`` > 0, else ``token_ids[i]``."""
    out = torch.empty_like(token_ids)
    if len(out):
        options = launch_options("fill_tokens", out.device)
        tile = options.pop("tile")
        _fill_tokens[(triton.cdiv(len(out), tile),)](
            token_ids, sampled, sources, out, len(out), TILE=tile, **options
        )
    return out


def _reference(
    token_ids: torch.Tensor, sampled: torch.Tensor, sources: torch.Tensor
) -> torch.Tensor:
    drawn = sampled[(sources - 1).clamp(min=0).long()]
    return torch.where(sources > 0, drawn, token_ids)


def _case(tokens: int, rows: int, *, ahead: bool = False) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        def integers(low: int, high: int, count: int) -> torch.Tensor:
            numbers = torch.randint(low, high, (count,), generator=generator, device=device)
            return numbers.to(torch.int32)

        return {
            "token_ids": integers(0, 1000, tokens),
            "sampled": integers(1000, 2000, rows),
            "sources": integers(0, rows + 1, tokens),
        }

    return Case(f"{tokens}-from-{rows}", make, ahead=ahead)


KERNELS = (
    Kernel("fill_tokens", fill_tokens, _reference, (_case(300, 7), _case(4096, 256, ahead=True))),
)
