"""SiLU, GELU and the tanh of caps inside kernels, on float32 values.

Of what is not arithmetic they call ``tl.exp`` and ``tl.erf`` alone, which every target and the
interpreter have.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

__all__ = ["activate", "tanh"]


@triton.jit
def activate(x, KIND: tl.constexpr) -> Any:
    """``silu``, ``gelu`` or ``gelu_tanh`` of x."""
    if KIND == "gelu":
        result = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif KIND == "gelu_tanh":
        # (1 + tanh(y)) / 2 is sigmoid(2 y)
        result = _times_sigmoid(x, 1.5957691216057308 * (x + 0.044715 * x * x * x))
    else:
        result = _times_sigmoid(x, x)
    return result


@triton.jit
def _times_sigmoid(x, y):
    decay = tl.exp(-tl.abs(y))
    return x * tl.where(y >= 0, 1.0, decay) / (1.0 + decay)


@triton.jit
def tanh(x) -> Any:
    """Off by a few units in the last place near 0 too, where exp(2 x) - 1 cancels."""
    square = x * x
    series = 1.0 + square * (
        -0.3333333333 + square * (0.1333333333 + square * (-0.05396825397 + square * 0.02186948854))
    )
    decay = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - decay) / (1.0 + decay)
    return tl.where(square < 0.0625, x * series, tl.where(x < 0, -far, far))
