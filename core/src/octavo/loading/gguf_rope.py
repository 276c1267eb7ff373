"""GGUF's rotary settings as the ``rope_scaling`` of a Hugging Face config."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from octavo.loading.gguf_fields import GGUFFields

__all__ = ["rope_settings"]


def rope_settings(
    fields: GGUFFields, factors: Mapping[str, Sequence[float]], head_dim: int
) -> dict[str, Any]:
    """The config entries on rotary embedding; ``factors`` are the rope factor tensors by name."""
    settings: dict[str, Any] = {"rope_theta": fields.number("rope.freq_base", 10000.0)}
    rotary_dim = fields.count("rope.dimension_count", head_dim)
    if rotary_dim != head_dim:
        settings["partial_rotary_factor"] = rotary_dim / head_dim
    for name, values in factors.items():
        _check_factors(fields, name, values, rotary_dim)
    if "rope_freqs.weight" in factors:
        settings["rope_scaling"] = _frequency_factors(fields, factors["rope_freqs.weight"])
    elif factors:
        settings |= _long_and_short_factors(fields, factors)
    else:
        settings["rope_scaling"] = _scaling_by_type(fields)
    return settings


def _check_factors(fields: GGUFFields, name: str, values: Sequence[float], rotary_dim: int) -> None:
    if len(values) != rotary_dim // 2 or not all(0 < value < math.inf for value in values):
        raise fields.error("rope.dimension_count", f"{name} to hold half as many positive factors")


def _frequency_factors(fields: GGUFFields, factors: Sequence[float]) -> dict[str, Any]:
    """The divisors of every frequency, as the converter worked them out for Llama 3.

    The parameters of Hugging Face's "llama3" kind cannot be told from them in every case, but its
    "longrope" kind takes divisors as they are. With the same list for long and short contexts and
    no attention factor it is the same arithmetic.
    """
    return {
        "rope_type": "longrope",
        "short_factor": list(factors),
        "long_factor": list(factors),
        "factor": 1.0,
        "attention_factor": 1.0,
        "original_max_position_embeddings": fields.count("context_length"),
    }


def _long_and_short_factors(
    fields: GGUFFields, factors: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """Phi-3's two lists of divisors: one within the original context, one beyond it."""
    both = ("rope_factors_short.weight", "rope_factors_long.weight")
    if not all(name in factors for name in both):
        raise fields.error("rope.scaling.type", f"both {both[0]} and {both[1]} in the file")
    original_context = fields.count("rope.scaling.original_context_length")
    scaling: dict[str, Any] = {
        "rope_type": "longrope",
        "short_factor": list(factors[both[0]]),
        "long_factor": list(factors[both[1]]),
    }
    attention_factor = fields.optional_number("rope.scaling.attn_factor")
    if attention_factor is not None:
        scaling["attention_factor"] = attention_factor
    return {"rope_scaling": scaling, "original_max_position_embeddings": original_context}


def _scaling_by_type(fields: GGUFFields) -> dict[str, Any] | None:
    kind = fields.get("rope.scaling.type")
    if kind is None and fields.has("rope.scale_linear"):  # written before rope.scaling.* existed
        return _linear(fields.number("rope.scale_linear"))
    if kind is None or (isinstance(kind, str) and kind == "none"):
        return None
    if not isinstance(kind, str):
        raise fields.error("rope.scaling.type", "a string")
    if kind == "linear":
        return _linear(fields.number("rope.scaling.factor"))
    if kind == "yarn":
        return _yarn(fields)
    if kind == "longrope":
        raise fields.error("rope.scaling.type", "the tensors rope_factors_short and _long with it")
    raise fields.error("rope.scaling.type", "one of none, linear, yarn, longrope")


def _linear(factor: float) -> dict[str, Any] | None:
    return None if factor == 1.0 else {"rope_type": "linear", "factor": factor}


def _yarn(fields: GGUFFields) -> dict[str, Any]:
    factor = fields.number("rope.scaling.factor")
    scaling: dict[str, Any] = {"rope_type": "yarn", "factor": factor}
    scaling["original_max_position_embeddings"] = fields.count(
        "rope.scaling.original_context_length", max(1, int(fields.count("context_length") / factor))
    )
    attention_factor = fields.optional_number("rope.scaling.attn_factor")
    if attention_factor is not None:
        # llama.cpp multiplies by this on top of YaRN's own factor, which Hugging Face replaces.
        scaling["attention_factor"] = attention_factor * (0.1 * math.log(max(factor, 1.0)) + 1.0)
    for gguf_key, hf_key in (("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")):
        if fields.has(f"rope.scaling.{gguf_key}"):
            scaling[hf_key] = fields.number(f"rope.scaling.{gguf_key}")
    return scaling
