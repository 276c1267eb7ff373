"""Joins the shares of a context that ``attention_decode`` was split into."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from octavo_torch.kernels.attention_parts import LOG2_E
from octavo_torch.kernels.kernel import Case, Kernel

__all__ = ["KERNELS", "MAX_SPLITS", "attention_reduce"]

MAX_SPLITS = 32


# Numbers that change from step to step are nothing to compile anew for.
@triton.jit(do_not_specialize=["num_splits"])
def _attention_reduce(
    parts_ptr,  # float32[seqs, heads, splits, head_dim]
    stats_ptr,  # float32[seqs, heads, splits, 2]: maximum in base two, denominator
    query_start_ptr,  # i32[seqs + 1]
    sinks_ptr,  # [heads], or unused
    out_ptr,  # [tokens, heads, head_dim]
    num_splits,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    SPLITS_PAD: tl.constexpr,
    HAS_SINKS: tl.constexpr,
):
    seq = tl.program_id(0)
    head = tl.program_id(1)
    heads = tl.num_programs(1)
    token = tl.load(query_start_ptr + seq)
    if tl.load(query_start_ptr + seq + 1) - token != 1:
        return
    split = tl.arange(0, SPLITS_PAD)
    dim = tl.arange(0, D_PAD)
    part = (seq.to(tl.int64) * heads + head) * num_splits + split
    highest = tl.load(stats_ptr + part * 2, mask=split < num_splits, other=-1e30)
    total = tl.load(stats_ptr + part * 2 + 1, mask=split < num_splits, other=0.0)
    above = tl.max(highest, 0)
    if HAS_SINKS:
        sink = tl.load(sinks_ptr + head).to(tl.float32) * LOG2_E
        above = tl.maximum(above, sink)
    fade = tl.exp2(highest - above)
    denominator = tl.sum(total * fade, 0)
    if HAS_SINKS:
        denominator += tl.exp2(sink - above)
    inside = (total != 0.0)[:, None] & (dim < D)[None, :]  # an empty share has written nothing
    parts = tl.load(parts_ptr + part[:, None] * D + dim[None, :], mask=inside, other=0.0)
    attended = tl.sum(parts * fade[:, None], 0) / tl.where(denominator == 0.0, 1.0, denominator)
    place = out_ptr + (token.to(tl.int64) * heads + head) * D + dim
    tl.store(place, attended.to(out_ptr.dtype.element_ty), mask=dim < D)


def attention_reduce(
    parts: torch.Tensor,  # float32[seqs, heads, splits, head_dim]
    stats: torch.Tensor,  # float32[seqs, heads, splits, 2]
    query_start: torch.Tensor,  # i32[seqs + 1]
    sinks: torch.Tensor | None,  # [heads]
    out: torch.Tensor,  # [tokens, heads, head_dim]
) -> torch.Tensor:
    """``out`` with the rows of sequences that have one query, written in place.

    There are ``MAX_SPLITS`` shares at most.
    """
    seqs, heads, num_splits, head_dim = parts.shape
    _attention_reduce[(seqs, heads)](
        parts, stats, query_start, stats if sinks is None else sinks, out, num_splits,
        D=head_dim, D_PAD=max(16, triton.next_power_of_2(head_dim)),
        SPLITS_PAD=MAX_SPLITS, HAS_SINKS=sinks is not None,
        num_warps=4,
    )  # fmt: skip
    return out


def _launch(
    parts: torch.Tensor, stats: torch.Tensor, query_start: torch.Tensor, sinks: torch.Tensor | None
) -> torch.Tensor:
    tokens = query_start.shape[0] - 1
    out = torch.empty((tokens, *parts.shape[1::2]), dtype=torch.bfloat16, device=parts.device)
    return attention_reduce(parts, stats, query_start, sinks, out)


def _reference(
    parts: torch.Tensor, stats: torch.Tensor, query_start: torch.Tensor, sinks: torch.Tensor | None
) -> torch.Tensor:
    del query_start  # one query each
    scores = stats[..., 0].double() * torch.log(torch.tensor(2.0, dtype=torch.float64))
    weights = torch.exp(scores)
    denominator = (weights * stats[..., 1]).sum(-1)
    if sinks is not None:
        denominator = denominator + torch.exp(sinks.double())
    parts = torch.where(stats[..., 1:] > 0, parts.double(), 0.0)
    return ((weights[..., None] * parts).sum(2) / denominator[..., None]).to(torch.bfloat16)


def _case(splits: int, head_dim: int, *, sinks: bool, ahead: bool = False) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        seqs, heads = (64, 32) if ahead else (2, 3)
        stats = torch.rand((seqs, heads, splits, 2), generator=generator, device=device) + 0.5
        stats[..., -1, 0], stats[..., -1, 1] = -1e30, 0.0  # a share without keys
        stats[0, 0, 0, 1] = float("nan")  # what began as NaN stays so
        parts = torch.randn((seqs, heads, splits, head_dim), generator=generator, device=device)
        parts[..., -1, :] = float("nan")
        sink_scores = torch.randn(heads, generator=generator, device=device) if sinks else None
        starts = torch.arange(seqs + 1, dtype=torch.int32, device=device)
        return {"parts": parts, "stats": stats, "query_start": starts, "sinks": sink_scores}

    label = f"{splits}-of-{head_dim}" + ("-sinks" if sinks else "")
    return Case(label, make, dtypes=("bfloat16",), ahead=ahead)


_CASES = (
    _case(3, 80, sinks=True),
    _case(2, 16, sinks=False),
    _case(32, 128, sinks=False, ahead=True),
)
KERNELS = (Kernel("attention_reduce", _launch, _reference, _CASES),)
