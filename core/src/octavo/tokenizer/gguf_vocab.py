"""The vocabulary in a GGUF file's metadata (tokenizer.ggml.*), read and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from octavo.errors import ModelLoadError

__all__ = ["GGUFVocabulary", "TokenKind", "read_vocabulary"]

_PREFIX = "tokenizer.ggml."


class TokenKind(IntEnum):
    """The values of tokenizer.ggml.token_type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class GGUFVocabulary:
    """Token ids are positions in `tokens`; `kinds` and `scores` are as long, `scores` or empty."""

    model: str
    architecture: str
    tokens: Sequence[str]
    kinds: Sequence[int]
    scores: Sequence[float]
    merges: Sequence[str]
    metadata: Mapping[str, Any]

    def of_kind(self, *kinds: TokenKind) -> list[str]:
        """Every token of these kinds, in the order of the ids."""
        return [token for token, kind in zip(self.tokens, self.kinds, strict=True) if kind in kinds]

    def flag(self, key: str, *, default: bool) -> bool:
        """A flag such as add_bos_token."""
        return bool(self.metadata.get(_PREFIX + key, default))

    def text(self, key: str) -> str | None:
        """A text such as pre, the name of the pre-tokenizer."""
        value = self.metadata.get(_PREFIX + key)
        return value if isinstance(value, str) and value else None

    def token_at(self, key: str, default_id: int | None = None) -> str | None:
        """The token that a key such as bos_token_id points to, or None where there is none."""
        token_id = self.metadata.get(_PREFIX + key, default_id)
        if token_id is None:
            return None
        if not isinstance(token_id, int) or not 0 <= token_id < len(self.tokens):
            raise ModelLoadError(
                f"{_PREFIX}{key} is {token_id!r}, expected the id of one of the file's "
                f"{len(self.tokens)} tokens. The file is damaged or was converted wrongly."
            )
        return self.tokens[token_id]


def read_vocabulary(metadata: Mapping[str, Any]) -> GGUFVocabulary:
    """The vocabulary, with its arrays checked for kind, length and repeated tokens."""
    tokens = _texts(metadata, "tokens")
    if not tokens:
        raise ModelLoadError(
            f"The GGUF holds no tokens ({_PREFIX}tokens). Name a folder with the model's tokenizer "
            "with --tokenizer, or pass token ids."
        )
    kinds = _numbers(metadata, "token_type", tokens) or [TokenKind.NORMAL] * len(tokens)
    _check_distinct(tokens)
    return GGUFVocabulary(
        model=str(metadata.get(_PREFIX + "model")),
        architecture=str(metadata.get("general.architecture")),
        tokens=tokens,
        kinds=[int(kind) for kind in kinds],
        scores=_numbers(metadata, "scores", tokens),
        merges=_texts(metadata, "merges"),
        metadata=metadata,
    )


def _texts(metadata: Mapping[str, Any], key: str) -> list[str]:
    values = metadata.get(_PREFIX + key, [])
    if not isinstance(values, list) or not set(map(type, values)) <= {str}:
        raise ModelLoadError(f"{_PREFIX}{key} is not an array of strings; the file is damaged.")
    return values


def _numbers(metadata: Mapping[str, Any], key: str, tokens: Sequence[str]) -> list[float]:
    """A number for each token, or nothing."""
    values: Iterable[Any] = metadata.get(_PREFIX + key, [])
    numbers = values.tolist() if hasattr(values, "tolist") else list(values)
    if numbers and len(numbers) != len(tokens):
        raise ModelLoadError(
            f"{_PREFIX}{key} has {len(numbers)} entries for {len(tokens)} tokens; the file is "
            "damaged or was converted wrongly."
        )
    return numbers


def _check_distinct(tokens: Sequence[str]) -> None:
    if len(set(tokens)) == len(tokens):
        return
    first_ids: dict[str, int] = {}
    for token_id, token in enumerate(tokens):
        if token in first_ids:
            raise ModelLoadError(
                f"{_PREFIX}tokens lists {token!r} twice, as {first_ids[token]} and {token_id}; "
                "the file is damaged or was converted wrongly."
            )
        first_ids[token] = token_id
