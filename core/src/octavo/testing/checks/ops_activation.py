"""Checks of the activations: silu_mul, gelu_mul, gelu, soft_cap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.testing import oracle
from octavo.testing.check import Check
from octavo.testing.checks.op_cases import op_check
from octavo.testing.feed import Feed

__all__ = ["CHECKS"]

_LARGE: dict[str, tuple[int, int]] = {"3x5003": (3, 5003), "1100x8": (1100, 8)}
_EXTREMES = (0.0, 1e-3, 1.0, 8.0, 20.0, 100.0, 1e3, 1e4)  # exp(100) is beyond float32


def _extremes() -> NDArray[np.float64]:
    """[1, values] of either sign."""
    return np.array([sign * value for value in _EXTREMES for sign in (1, -1)])[None]


def _gate_up(feed: Feed, shape: tuple[int, int] | None) -> tuple[Any, Any, Any]:
    """(gate and up as the op gets them, gate, up); extreme gates if there is no shape."""
    if shape is not None:
        gate_up = feed.normal(shape[0], 2 * shape[1], scale=4.0)
    else:
        gates = _extremes()
        gate_up = feed.array(np.concatenate([gates, feed.rng.uniform(0.5, 2, gates.shape)], 1))
    inner = gate_up.shape[1] // 2
    return gate_up, oracle.float64(gate_up[:, :inner]), oracle.float64(gate_up[:, inner:])


def _silu_mul(feed: Feed, shape: tuple[int, int] | None) -> None:
    gate_up, gate, up = _gate_up(feed, shape)
    feed.expect(
        "silu_mul",
        feed.get("silu_mul", gate_up),
        oracle.silu(gate) * up,
        ("gate and up were swapped", lambda: oracle.silu(up) * gate),
        ("gate and up were taken from every other feature", lambda: _every_other(gate_up)),
        ("up were not multiplied", lambda: oracle.silu(gate)),
        ("it were a GELU", lambda: oracle.gelu(gate, tanh=False) * up),
    )


def _every_other(gate_up: NDArray[Any]) -> NDArray[np.float64]:
    product: NDArray[np.float64] = oracle.silu(gate_up[:, ::2]) * oracle.float64(gate_up[:, 1::2])
    return product


def _gelu_mul(feed: Feed, shape: tuple[int, int] | None, *, tanh: bool) -> None:
    gate_up, gate, up = _gate_up(feed, shape)
    feed.expect(
        "gelu_mul",
        feed.get("gelu_mul", gate_up, tanh=tanh),
        oracle.gelu(gate, tanh=tanh) * up,
        (f"tanh={tanh} were ignored", lambda: oracle.gelu(gate, tanh=not tanh) * up),
        ("gate and up were swapped", lambda: oracle.gelu(up, tanh=tanh) * gate),
        ("it were a SiLU", lambda: oracle.silu(gate) * up),
    )


def _gelu(feed: Feed, shape: tuple[int, int] | None, *, tanh: bool) -> None:
    x = feed.array(_extremes()) if shape is None else feed.normal(*shape, scale=3.0)
    feed.expect(
        "gelu",
        feed.get("gelu", x, tanh=tanh),
        oracle.gelu(x, tanh=tanh),
        (f"tanh={tanh} were ignored", lambda: oracle.gelu(x, tanh=not tanh)),
        ("it were a SiLU", lambda: oracle.silu(x)),
    )


def _soft_cap(feed: Feed, shape: tuple[int, ...] | None) -> None:
    x = feed.array(_extremes()) if shape is None else feed.normal(*shape, scale=50.0)
    cap = 30.0 if shape is None or len(shape) < 3 else 5.0  # a model may have two
    feed.expect(
        "soft_cap",
        feed.get("soft_cap", x, cap),
        oracle.soft_cap(x, cap),
        ("it were clipped", lambda: np.clip(oracle.float64(x), -cap, cap)),
        ("it were not multiplied by the cap", lambda: oracle.soft_cap(x, cap) / cap),
        ("it were not divided by the cap", lambda: cap * np.tanh(oracle.float64(x))),
        axes=("row", "feature") if shape is None else ("row", "head", "feature")[: len(shape)],
    )


def _both(check: Callable[..., None], shape: tuple[int, int] | None, tanh: bool) -> tuple[Any, ...]:
    return (lambda feed: check(feed, shape, tanh=tanh),)


def _gelu_rows(check: Callable[..., None]) -> dict[str, tuple[Any, ...]]:
    shapes = {"1x64": (1, 64), "300x24": (300, 24), "3x25": (3, 25), "extreme values": None}
    shapes |= _LARGE
    return {
        f"{label} {'tanh' if tanh else 'erf'}": _both(check, shape, tanh)
        for label, shape in shapes.items()
        for tanh in (False, True)
    }


_LARGE_GELU = [
    f"{shape} {kind}" for shape in ("1x64", "300x24", *_LARGE) for kind in ("erf", "tanh")
]


CHECKS: tuple[Check, ...] = (
    op_check(
        "silu_mul",
        "silu(gate) * up, also where exp(gate) overflows",
        {
            "1x64": (_silu_mul, (1, 64)),
            "300x24": (_silu_mul, (300, 24)),
            **{label: (_silu_mul, shape) for label, shape in _LARGE.items()},
            "3x25": (_silu_mul, (3, 25)),
            "extreme values": (_silu_mul, None),
        },
        float32_rows=["1x64", "300x24", *_LARGE],
    ),
    op_check(
        "gelu_mul",
        "gelu(gate) * up by erf and by tanh, also for extreme gates",
        _gelu_rows(_gelu_mul),
        float32_rows=_LARGE_GELU,
    ),
    op_check(
        "gelu",
        "GELU by erf and by tanh, also of extreme values",
        _gelu_rows(_gelu),
        float32_rows=_LARGE_GELU,
    ),
    op_check(
        "soft_cap",
        "cap * tanh(x / cap), also where exp(x) overflows",
        {
            "3x25": (_soft_cap, (3, 25)),
            "300x24": (_soft_cap, (300, 24)),
            **{label: (_soft_cap, shape) for label, shape in _LARGE.items()},
            "2x3x8": (_soft_cap, (2, 3, 8)),
            "extreme values": (_soft_cap, None),
        },
        float32_rows=["300x24", "2x3x8", *_LARGE],
    ),
)
