"""Checks of rotary position embedding: rope_table and rope."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octavo.ops.protocol import RopeSpec
from octavo.testing import oracle
from octavo.testing.check import Case, Check
from octavo.testing.checks.op_cases import op_check
from octavo.testing.comparison import expect_close, expect_form
from octavo.testing.feed import Feed
from octavo.testing.tolerances import TOLERANCES

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["CHECKS"]

Float64 = NDArray[np.float64]

_BASE, _DIM, _TRAINED = 10_000.0, 16, 32
_PLAIN = tuple(_BASE ** (-i / _DIM) for i in range(0, _DIM, 2))
_LONG = tuple(f / (1.5 + i) for i, f in enumerate(_PLAIN))

# (position, context length): within the trained length, just beyond it, and a short position of a
# long prompt, whose frequencies are those of the long context.
_SHORT = ((0, 1), (1, 32), (31, 32), (32, 33), (33, 100), (500, 501), (4, 40), (0, 33))
_FAR = ((2_049, 2_050), (65_537, 65_538), (131_071, 131_072))  # odd: no narrow float holds them

_SPECS = {
    "default": RopeSpec("default", _DIM, _BASE, _PLAIN),
    "linear": RopeSpec("linear", _DIM, _BASE, tuple(f / 4 for f in _PLAIN), factor=4.0),
    "llama3": RopeSpec("llama3", _DIM, _BASE, tuple(f / (1 + i) for i, f in enumerate(_PLAIN))),
    "yarn": RopeSpec("yarn", _DIM, _BASE, _PLAIN, attention_factor=1.25),
    "dynamic": RopeSpec("dynamic", _DIM, _BASE, _PLAIN, factor=4.0, original_max_len=_TRAINED),
    "longrope": RopeSpec(
        "longrope",
        _DIM,
        _BASE,
        _PLAIN,
        attention_factor=1.19,
        original_max_len=_TRAINED,
        long_inv_freq=_LONG,
    ),
}

# An angle in float32 is off by its own rounding and by its frequency's, of 2^-24 each. A dynamic
# frequency comes from two powers, whose exponents (up to 10) multiply the roundings before them.
_ANGLE_ERROR = 2 * 2**-24
_ANGLE_ERRORS = {"dynamic": 16 * _ANGLE_ERROR}


def _table_cases(_subject: Subject) -> Iterator[Case]:
    for kind in _SPECS:
        yield Case(kind, (kind, _SHORT))
        yield Case(f"{kind} far away", (kind, _FAR))


def _rope_table(subject: Subject, case: tuple[str, tuple[tuple[int, int], ...]]) -> None:
    kind, tokens = case
    spec = _SPECS[kind]
    positions, context_lens = (list(column) for column in zip(*tokens, strict=True))
    table = Feed(subject, "float32").call(
        "rope_table", np.array(positions, np.int32), np.array(context_lens, np.int32), spec
    )
    angles = _angles(spec, positions, context_lens)
    by_position = _angles(spec, positions, [position + 1 for position in positions])
    factor = spec.attention_factor
    for name, wave, result in zip(("cos", "sin"), (np.cos, np.sin), table, strict=True):
        values = np.asarray(subject.get(result))
        what = f"The {name} of rope_table of kind {kind}"
        expect_form(what, values, angles.shape, "float32")
        scaled = partial(_scaled, wave, factor)
        expect_close(
            what,
            values,
            scaled(angles),
            TOLERANCES["float32"],
            axes=("token", "pair"),
            variants=[
                ("attention_factor were ignored", partial(_scaled, wave, 1.0, angles)),
                (
                    "the context length were ignored",
                    partial(scaled, _angles(spec, positions, [1] * len(positions))),
                ),
                ("position + 1 were taken for the context length", partial(scaled, by_position)),
            ],
            slack=_ANGLE_ERRORS.get(kind, _ANGLE_ERROR) * np.abs(angles) * factor,
        )


def _angles(spec: RopeSpec, positions: list[int], context_lens: list[int]) -> Float64:
    frequencies = [oracle.rope_frequencies(spec, length) for length in context_lens]
    return oracle.rope_angles(positions, frequencies)


def _scaled(wave: Callable[[Float64], Float64], factor: float, angles: Float64) -> Float64:
    return wave(angles) * factor


def _rope(feed: Feed, num_heads: int, head_dim: int, rotary_dim: int, num_tokens: int = 5) -> None:
    half = rotary_dim // 2
    x = feed.normal(num_tokens, num_heads, head_dim)
    angles = feed.rng.uniform(-3, 3, (num_tokens, half))
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    feed.expect(
        "rope",
        feed.get("rope", x, cos, sin),
        oracle.rope(x, angles),
        ("it turned the other way", lambda: oracle.rope(x, -angles)),
        (
            "feature 2 i were paired with 2 i + 1, and not i with i + half",
            lambda: _pairs(x, angles),
        ),
        ("feature i were paired with i + head_dim / 2, and not i + half", lambda: _full(x, angles)),
        axes=("token", "head", "feature"),
    )


def _pairs(x: NDArray[Any], angles: Float64) -> Float64:
    """The layout of GPT-J."""
    rotary_dim = 2 * angles.shape[1]
    order = np.concatenate([np.arange(0, rotary_dim, 2), np.arange(1, rotary_dim, 2)])
    turned = oracle.float64(x)
    turned[..., order] = oracle.rope(x[..., order], angles)
    return turned


def _full(x: NDArray[Any], angles: Float64) -> Float64:
    half, middle = angles.shape[1], x.shape[2] // 2
    order = np.concatenate([np.arange(half), middle + np.arange(half)])
    turned = oracle.float64(x)
    turned[..., order] = oracle.rope(x[..., order], angles)
    return turned


CHECKS: tuple[Check, ...] = (
    Check(
        "ops",
        "rope_table",
        "cos and sin of every kind of scaling, by position and context length, also far away",
        "ops.rope_table",
        _rope_table,
        _table_cases,
    ),
    op_check(
        "rope",
        "feature i turns with i + half, for any number of heads; the rest of a head is untouched",
        {
            "3 heads of 16": (_rope, 3, 16, 16),
            "8 of 24 features": (_rope, 2, 24, 8),
            "33 heads of 8": (_rope, 33, 8, 8),
            "136 heads of 8": (_rope, 136, 8, 8),
            "2 heads of 512": (_rope, 2, 512, 512),
            "20 of 80 features": (_rope, 2, 80, 20),
            "1100 tokens": (_rope, 1, 8, 8, 1100),
        },
        float32_rows=["33 heads of 8", "136 heads of 8", "1100 tokens"],
    ),
)
