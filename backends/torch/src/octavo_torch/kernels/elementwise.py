"""GELU and the soft cap, element by element."""

from __future__ import annotations

from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch.nn import functional

from octavo_torch.kernels.activations import activate, tanh
from octavo_torch.kernels.kernel import Case, Kernel
from octavo_torch.kernels.tuning import launch_options

__all__ = ["KERNELS", "elementwise"]


@triton.jit
def _elementwise(x_ptr, out_ptr, num_elements, cap, KIND: tl.constexpr, TILE: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = place < num_elements
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    result = cap * tanh(x / cap) if KIND == "soft_cap" else activate(x, KIND)
    tl.store(out_ptr + place, result.to(out_ptr.dtype.element_ty), mask=inside)


def elementwise(
    x: torch.Tensor, kind: Literal["gelu", "gelu_tanh", "soft_cap"], cap: float = 1.0
) -> torch.Tensor:
    """``gelu(x)``, or ``cap * tanh(x / cap)``; in float32, rounded to the dtype of x."""
    x = x.contiguous()
    out = torch.empty_like(x)
    if x.numel():
        options = launch_options("elementwise", x.device)
        tile = options.pop("tile")
        _elementwise[(triton.cdiv(x.numel(), tile),)](
            x, out, x.numel(), cap, KIND=kind, TILE=tile, **options
        )
    return out


def _reference(x: torch.Tensor, kind: str, cap: float = 1.0) -> torch.Tensor:
    if kind == "soft_cap":
        return (cap * (x.double() / cap).tanh()).to(x.dtype)
    form = "tanh" if kind == "gelu_tanh" else "none"
    return functional.gelu(x.double(), approximate=form).to(x.dtype)


def _case(
    rows: int, columns: int, kind: str, dtype: torch.dtype = torch.bfloat16, *, ahead: bool = False
) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        x = torch.randn((rows, columns), generator=generator, device=device)
        x[:, :1] *= 1000
        x[:, 1:2] *= 1e-3
        return {"x": x.to(dtype), "kind": kind, "cap": 30.0}

    name = str(dtype).removeprefix("torch.")
    return Case(f"{kind}-{rows}x{columns}-{name}", make, dtypes=(name,), ahead=ahead)


KERNELS = (
    Kernel(
        "elementwise",
        elementwise,
        _reference,
        (
            _case(3, 40, "soft_cap", torch.float32),
            _case(2, 700, "gelu"),
            _case(3, 40, "gelu_tanh", torch.float32),
            _case(8, 32000, "soft_cap", torch.float32, ahead=True),
        ),
    ),
)
