"""Reads a checkpoint's JSON files; what is not a JSON object of sane size is a ModelLoadError."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octavo.errors import ModelLoadError

__all__ = ["check_model_config", "read_json_object"]

_MAX_JSON_BYTES = 64 << 20

_POSITIVE_INTEGER_LIMITS = {
    **dict.fromkeys(("hidden_size", "n_embd"), 1 << 20),
    **dict.fromkeys(("intermediate_size", "n_inner"), 1 << 24),
    **dict.fromkeys(("num_hidden_layers", "n_layer"), 10_000),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head"), 1 << 16),
    "head_dim": 1 << 16,
    "vocab_size": 1 << 26,
    **dict.fromkeys(("max_position_embeddings", "n_positions"), (1 << 31) - 1),
}
"""The largest believable values: far beyond any model, far below what exhausts a machine."""


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        size_bytes = path.stat().st_size
        if size_bytes > _MAX_JSON_BYTES:
            raise ModelLoadError(
                f"{path}: {size_bytes} bytes is too large; at most {_MAX_JSON_BYTES} are read"
            )
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelLoadError(f"{path}: cannot be read ({error})") from error
    except (ValueError, RecursionError) as error:  # bad UTF-8 and bad JSON are both ValueErrors
        raise ModelLoadError(
            f"{path}: not valid JSON ({type(error).__name__}: {error}). Download it again"
        ) from error
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path}: holds a JSON {type(value).__name__}; expected an object")
    return value


def check_model_config(config: Mapping[str, Any], origin: Path | str) -> None:
    """Refuse a config whose sizes no model can have; also looks into ``text_config``."""
    for key, limit in _POSITIVE_INTEGER_LIMITS.items():
        value = config.get(key)
        if value is None:
            continue
        if type(value) is not int or not 1 <= value <= limit:
            shown = repr(value) if len(repr(value)) < 80 else repr(value)[:80] + "…"
            raise ModelLoadError(
                f"{origin}: {key} is {shown}; expected a whole number from 1 to {limit}"
            )
    text_config = config.get("text_config")
    if isinstance(text_config, dict):
        check_model_config(text_config, f"{origin} (text_config)")
