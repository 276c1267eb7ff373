"""Logits after mask, bias and penalties: what sampling chooses from."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from octavo_torch.kernels.integer_weights import EXACT
from octavo_torch.kernels.kernel import Case, Kernel
from octavo_torch.kernels.tuning import launch_options

__all__ = ["KERNELS", "adjust_logits"]


@triton.jit
def _mask_logits(
    logits_ptr,  # [rows, vocab], rows row_stride apart
    mask_ptr,  # u8[rows, vocab], or unused
    out_ptr,  # float32[rows, vocab]
    vocab_size,
    row_stride,
    mask_stride,
    HAS_MASK: tl.constexpr,
    TILE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = token < vocab_size
    logit = tl.load(logits_ptr + row * row_stride + token, mask=inside, other=0.0).to(tl.float32)
    if HAS_MASK:
        allowed = tl.load(mask_ptr + row * mask_stride + token, mask=inside, other=0)
        logit = tl.where(allowed != 0, logit, -float("inf"))
    tl.store(out_ptr + row * vocab_size + token, logit, mask=inside)


@triton.jit
def _add_biases(
    logits_ptr, rows_ptr, ids_ptr, values_ptr, num_biases, vocab_size, TILE: tl.constexpr
):
    entry = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = entry < num_biases
    row = tl.load(rows_ptr + entry, mask=inside, other=0).to(tl.int64)
    place = logits_ptr + row * vocab_size + tl.load(ids_ptr + entry, mask=inside, other=0)
    value = tl.load(values_ptr + entry, mask=inside, other=0.0)
    tl.store(place, tl.load(place, mask=inside, other=0.0) + value, mask=inside)


@triton.jit
def _rounded(x) -> Any:
    """To whole numbers, half to even: between 2**23 and 2**24 float32 has no others."""
    size = tl.abs(x)
    whole = tl.where(size < 8388608.0, (size + 8388608.0) - 8388608.0, size)
    return tl.where(x < 0.0, -whole, whole)


@triton.jit
def _penalise(
    logits_ptr,
    rows_ptr,
    ids_ptr,
    counts_ptr,
    repetition_ptr,
    presence_ptr,
    frequency_ptr,
    num_seen,
    vocab_size,
    TILE: tl.constexpr,
):
    entry = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = entry < num_seen
    row = tl.load(rows_ptr + entry, mask=inside, other=0).to(tl.int64)
    place = logits_ptr + row * vocab_size + tl.load(ids_ptr + entry, mask=inside, other=0)
    count = tl.load(counts_ptr + entry, mask=inside, other=0).to(tl.float32)
    logit = tl.load(place, mask=inside, other=0.0)
    repetition = tl.load(repetition_ptr + row, mask=inside, other=1.0)
    logit = tl.where(logit > 0.0, tl.div_rn(logit, repetition), logit * repetition)
    frequency = tl.load(frequency_ptr + row, mask=inside, other=0.0)
    logit -= _rounded(frequency * count * 1048576.0) * (1.0 / 1048576.0)
    presence = tl.load(presence_ptr + row, mask=inside, other=0.0)
    tl.store(place, logit - tl.where(count > 0.0, presence, 0.0), mask=inside)


def adjust_logits(
    logits: torch.Tensor,  # [rows, vocab]
    mask: torch.Tensor | None,  # bool[rows, vocab], True = allowed
    biases: tuple[torch.Tensor, torch.Tensor, torch.Tensor],  # rows, ids: i32; values: float32
    seen: tuple[torch.Tensor, torch.Tensor, torch.Tensor],  # rows, ids, counts: i32
    penalties: tuple[torch.Tensor, torch.Tensor, torch.Tensor],  # float32[rows], as the core's
) -> torch.Tensor:
    """float32[rows, vocab]; (row, id) pairs of biases are unique, and so are those of seen.

    Equal to the core's ``adjusted_logits`` bit for bit: each operation is rounded for itself.
    ``penalties`` are repetition, presence and frequency.
    """
    rows, vocab_size = logits.shape
    options = launch_options("adjust_logits", logits.device)
    tile, entries = options.pop("tile"), options.pop("entries")
    out = torch.empty((rows, vocab_size), dtype=torch.float32, device=logits.device)
    allowed = logits if mask is None else mask.view(torch.uint8)
    _mask_logits[(rows, triton.cdiv(vocab_size, tile))](
        logits, allowed, out, vocab_size, logits.stride(0), allowed.stride(0),
        HAS_MASK=mask is not None, TILE=tile, **options,
    )  # fmt: skip
    if len(biases[0]):
        _add_biases[(triton.cdiv(len(biases[0]), entries),)](
            out, *biases, len(biases[0]), vocab_size, TILE=entries, **options
        )
    if len(seen[0]):
        _penalise[(triton.cdiv(len(seen[0]), entries),)](
            out, *seen, *penalties, len(seen[0]), vocab_size, TILE=entries, **options, **EXACT
        )
    return out


def _reference(
    logits: torch.Tensor,
    mask: torch.Tensor | None,
    biases: tuple[torch.Tensor, ...],
    seen: tuple[torch.Tensor, ...],
    penalties: tuple[torch.Tensor, ...],
) -> torch.Tensor:
    """The bits as integers: they must be equal."""
    adjusted = logits.float()
    if mask is not None:
        adjusted = adjusted.masked_fill(~mask, -float("inf"))
    rows, ids, values = biases
    adjusted = adjusted.index_put((rows.long(), ids.long()), values, accumulate=True)
    rows, ids, counts = seen
    repetition, presence, frequency = (penalty[rows.long()] for penalty in penalties)
    chosen = adjusted[rows.long(), ids.long()]
    chosen = torch.where(chosen > 0, chosen / repetition, chosen * repetition)
    chosen = chosen - (frequency * counts * (1 << 20)).round() / (1 << 20)
    chosen = chosen - torch.where(counts > 0, presence, 0.0)
    return adjusted.index_put((rows.long(), ids.long()), chosen).view(torch.int32)


def _launch(**arguments: Any) -> torch.Tensor:
    return adjust_logits(**arguments).view(torch.int32)


def _case(
    rows: int,
    vocab_size: int,
    entries: int,
    dtype: torch.dtype = torch.float32,
    *,
    masked: bool = True,
    ahead: bool = False,
) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        def places() -> list[torch.Tensor]:
            order = torch.randperm(rows * vocab_size, generator=generator, device=device)[:entries]
            return [(order // vocab_size).to(torch.int32), (order % vocab_size).to(torch.int32)]

        def normal(*shape: int) -> torch.Tensor:
            return 3 * torch.randn(shape, generator=generator, device=device)

        counts = normal(entries).abs().to(torch.int32) ** 3
        halves = ((100 * normal(rows)).round() + 0.5) / (1 << 20)  # of what they are rounded to
        return {
            "logits": normal(rows, vocab_size).to(dtype),
            "mask": normal(rows, vocab_size) > 0 if masked else None,
            "biases": (*places(), normal(entries)),
            "seen": (*places(), counts),
            "penalties": (normal(rows).abs() + 0.5, normal(rows), halves),
        }

    name = f"{rows}x{vocab_size}-{entries}-{str(dtype).removeprefix('torch.')}"
    return Case(name + ("-masked" if masked else ""), make, ahead=ahead, exact=True)


KERNELS = (
    Kernel(
        "adjust_logits",
        _launch,
        _reference,
        (
            _case(3, 1500, 300),
            _case(5, 300, 90, torch.bfloat16, masked=False),
            _case(64, 32000, 4000, ahead=True),
        ),
    ),
)
