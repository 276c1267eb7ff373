"""``act(gate) * up``: SiLU and GELU, gate and up side by side in a row."""

from __future__ import annotations

from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch.nn import functional

from octavo_torch.kernels.activations import activate
from octavo_torch.kernels.kernel import Case, Kernel
from octavo_torch.kernels.tuning import launch_options

__all__ = ["KERNELS", "Kind", "gated"]

Kind = Literal["silu", "gelu", "gelu_tanh"]


@triton.jit
def _gated(
    gate_up_ptr,  # [tokens, 2 * inner], rows row_stride apart
    out_ptr,  # [tokens, inner]
    inner,
    row_stride,
    KIND: tl.constexpr,
    TILE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = column < inner
    gate_ptr = gate_up_ptr + row * row_stride + column
    gate = tl.load(gate_ptr, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_ptr + inner, mask=inside, other=0.0).to(tl.float32)
    product = activate(gate, KIND) * up
    tl.store(out_ptr + row * inner + column, product.to(out_ptr.dtype.element_ty), mask=inside)


def gated(gate_up: torch.Tensor, kind: Kind) -> torch.Tensor:
    """[tokens, 2 * inner] -> [tokens, inner], in float32, rounded to the dtype of the argument."""
    gate_up = gate_up if gate_up.stride(-1) == 1 else gate_up.contiguous()
    num_tokens, inner = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((num_tokens, inner), dtype=gate_up.dtype, device=gate_up.device)
    if num_tokens:
        options = launch_options("gated", gate_up.device, inner=inner)
        tile = options.pop("tile")
        _gated[(num_tokens, triton.cdiv(inner, tile))](
            gate_up, out, inner, gate_up.stride(0), KIND=kind, TILE=tile, **options
        )
    return out


def _reference(gate_up: torch.Tensor, kind: Kind) -> torch.Tensor:
    gate, up = gate_up.double().chunk(2, -1)
    if kind == "silu":
        return (functional.silu(gate) * up).to(gate_up.dtype)
    form = "tanh" if kind == "gelu_tanh" else "none"
    return (functional.gelu(gate, approximate=form) * up).to(gate_up.dtype)


def _case(
    tokens: int, inner: int, kind: Kind, dtype: torch.dtype = torch.bfloat16, *, ahead: bool = False
) -> Case:
    def make(device: torch.device, generator: torch.Generator) -> dict[str, Any]:
        gate_up = torch.randn((tokens, 2 * inner), generator=generator, device=device)
        gate_up[:, :1] *= 60  # where exp overflows
        return {"gate_up": gate_up.to(dtype), "kind": kind}

    name = str(dtype).removeprefix("torch.")
    return Case(f"{kind}-{tokens}x{inner}-{name}", make, dtypes=(name,), ahead=ahead)


KERNELS = (
    Kernel(
        "gated",
        gated,
        _reference,
        (
            _case(3, 40, "silu", torch.float32),
            _case(2, 1500, "silu"),
            _case(3, 40, "gelu", torch.float32),
            _case(3, 40, "gelu_tanh", torch.float16),
            _case(64, 12288, "silu", ahead=True),
            _case(64, 8192, "gelu", ahead=True),
            _case(64, 8192, "gelu_tanh", ahead=True),
        ),
    ),
)
