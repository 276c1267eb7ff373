"""Where a checkpoint's tokenizer comes from: a folder of Hugging Face files or GGUF metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["GGUFMetadata", "TokenizerSource"]

GGUFMetadata: TypeAlias = Mapping[str, Any]
"""Key-values of a GGUF file under their own names ("tokenizer.ggml.tokens", "general.name", …).

Strings are ``str``, numbers ``int`` or ``float``, booleans ``bool``. Arrays of strings are
``list[str]``; arrays of numbers are one-dimensional NumPy arrays in native byte order; arrays of
arrays are lists of these.
"""


@dataclass(frozen=True)
class TokenizerSource:
    """Exactly one of the two is set; both are None where a checkpoint brings no tokenizer at all.

    ``directory`` holds tokenizer.json, tokenizer_config.json, special_tokens_map.json,
    chat_template.jinja, tokenizer.model, … as far as the model has them.
    """

    directory: Path | None = None
    gguf: GGUFMetadata | None = None

    def __post_init__(self) -> None:
        if self.directory is not None and self.gguf is not None:
            raise ValueError(f"a tokenizer has one source, not both {self.directory} and a GGUF")
