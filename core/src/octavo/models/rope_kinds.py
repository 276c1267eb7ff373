"""The formulas of rotary embedding, one per rope type.

In the order of operations of transformers' ``modeling_rope_utils.py``, each rounded to float32 as
it is there, so that angles agree far into long contexts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from octavo.errors import ModelLoadError
from octavo.models.rope_parameters import RopeParameters, float32
from octavo.ops.protocol import RopeKind, RopeSpec

__all__ = ["ROPE_KINDS"]


def _default(rope: RopeParameters) -> RopeSpec:
    return rope.spec(rope.frequencies())


def _linear(rope: RopeParameters) -> RopeSpec:
    """Positions are squeezed: every frequency is divided by ``factor``."""
    factor = rope.number("factor")
    inv_freq = tuple(float32(freq / factor) for freq in rope.frequencies())
    return rope.spec(inv_freq, factor=factor)


def _dynamic(rope: RopeParameters) -> RopeSpec:
    """NTK scaling: beyond ``max_len`` the op recomputes the base from the context length."""
    return rope.spec(
        rope.frequencies(), factor=rope.number("factor"), original_max_len=rope.max_len
    )


def _llama3(rope: RopeParameters) -> RopeSpec:
    """Long waves are divided by ``factor``, short ones kept, those between interpolated."""
    factor, original_max_len = rope.number("factor"), rope.original_max_len
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    if low >= high:
        raise ModelLoadError(
            f"config.json: rope parameter low_freq_factor is {low}; "
            f"expected less than high_freq_factor, which is {high}."
        )

    def scale(freq: float) -> float:
        wave_len = float32(float32(2 * math.pi) / freq)
        if wave_len < original_max_len / high:
            return freq
        if wave_len > original_max_len / low:
            return float32(freq / factor)
        kept = float32(float32(float32(original_max_len / wave_len) - low) / (high - low))
        return float32(float32(float32(float32(1 - kept) * freq) / factor) + float32(kept * freq))

    inv_freq = tuple(scale(freq) for freq in rope.frequencies())
    return rope.spec(inv_freq, factor=factor, original_max_len=original_max_len)


def _yarn(rope: RopeParameters) -> RopeSpec:
    """Frequencies that turn often are kept, slow ones divided, with a linear ramp between."""
    factor, original_max_len = rope.length_factor, rope.original_max_len
    low = _yarn_feature(rope, rope.number("beta_fast", 32))
    high = _yarn_feature(rope, rope.number("beta_slow", 1))
    if rope.parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.rotary_dim - 1)
    if low == high:
        high += 0.001

    def scale(index: int, period: float) -> float:
        divided = min(max(float32(float32(index - low) / (high - low)), 0.0), 1.0)
        kept = float32(1 - divided)
        inner = float32(float32(1.0 / float32(factor * period)) * float32(1 - kept))
        return float32(inner + float32(float32(1.0 / period) * kept))

    inv_freq = tuple(scale(index, period) for index, period in enumerate(rope.periods()))
    return rope.spec(
        inv_freq,
        factor=factor,
        original_max_len=original_max_len,
        attention_factor=_yarn_attention_factor(rope),
    )


def _yarn_feature(rope: RopeParameters, num_turns: float) -> float:
    """The feature pair that turns ``num_turns`` times within the trained length."""
    trained_turns = rope.original_max_len / (num_turns * 2 * math.pi)
    return rope.rotary_dim * math.log(trained_turns) / (2 * math.log(rope.base))


def _yarn_attention_factor(rope: RopeParameters) -> float:
    if rope.parameters.get("attention_factor") is not None:
        return rope.number("attention_factor")
    factor = rope.length_factor

    def scale(mscale: float) -> float:
        return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0

    if rope.parameters.get("mscale") and rope.parameters.get("mscale_all_dim"):
        return scale(rope.number("mscale")) / scale(rope.number("mscale_all_dim"))
    return scale(1.0)


def _longrope(rope: RopeParameters) -> RopeSpec:
    """Two sets of factors, for contexts up to the trained length and beyond."""
    original_max_len, factor = rope.original_max_len, rope.length_factor
    attention_factor = 1.0
    if rope.parameters.get("attention_factor") is not None:
        attention_factor = rope.number("attention_factor")
    elif factor > 1:
        attention_factor = math.sqrt(1 + math.log(factor) / math.log(original_max_len))

    def scaled(name: str) -> tuple[float, ...]:
        pairs = zip(rope.factors(name), rope.periods(), strict=True)
        return tuple(float32(1.0 / float32(factor * period)) for factor, period in pairs)

    return rope.spec(
        scaled("short_factor"),
        long_inv_freq=scaled("long_factor"),
        factor=factor,
        original_max_len=original_max_len,
        attention_factor=attention_factor,
    )


ROPE_KINDS: Mapping[RopeKind, Callable[[RopeParameters], RopeSpec]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
"""Rope types by their names in config.json."""
