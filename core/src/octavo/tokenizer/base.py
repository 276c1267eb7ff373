"""What the engine needs of a tokenizer, whatever file format it came from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from octavo.tokenizer.pieces import PieceTable

__all__ = ["ChatTemplates", "Tokenizer", "one_or_named"]

ChatTemplates: TypeAlias = str | Mapping[str, str] | None
"""One template, several by name ("default", "tool_use", …), or none."""


class Tokenizer(ABC):
    """Text to token ids and back.

    ``decode`` is exact: no clean-up of spaces before punctuation, invalid UTF-8 becomes U+FFFD, and
    an id without a token (padding of the embedding matrix) decodes to nothing.
    """

    vocab_size: int
    """One more than the highest token id, added tokens included."""

    special_tokens: Mapping[str, str]
    """Named special tokens under Hugging Face's names: ``{"bos_token": "<s>", …}``."""

    special_ids: frozenset[int]
    """Every token that ``skip_special_tokens`` leaves out."""

    eos_token_ids: frozenset[int]
    """Every token that ends an answer: end of text, and end of turn where the model has it."""

    chat_template: ChatTemplates
    """The checkpoint's chat template or templates, as Jinja source."""

    pieces: PieceTable | None = None
    """The bytes of each token, where decoding is nothing but joining them."""

    @abstractmethod
    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`; special tokens spelled out in it become their ids."""

    @abstractmethod
    def decode(
        self,
        ids: Sequence[int],
        *,
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
    ) -> str:
        """Text of `ids`, taken as the beginning of a text (SentencePiece drops its first space).

        ``spaces_between_special_tokens`` matters to the few decoders that join tokens by spaces;
        byte-level and SentencePiece vocabularies never put any.
        """

    @abstractmethod
    def id_to_token(self, token_id: int) -> str:
        """The token as the vocabulary spells it ("Ġhello", "▁hello"); "" where the id has none."""

    @abstractmethod
    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, or None."""

    def encode_batch(
        self, texts: Sequence[str], *, add_special_tokens: bool = True
    ) -> list[list[int]]:
        """`encode` of each text."""
        return [self.encode(text, add_special_tokens=add_special_tokens) for text in texts]

    @property
    def bos_token_id(self) -> int | None:
        """Id of the token that begins a text, or None."""
        return self._special_token_id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends a text, or None."""
        return self._special_token_id("eos_token")

    def _special_token_id(self, name: str) -> int | None:
        token = self.special_tokens.get(name)
        return None if token is None else self.token_to_id(token)


def one_or_named(templates: Mapping[str, str]) -> ChatTemplates:
    """The default template by itself where there is no other."""
    return templates["default"] if [*templates] == ["default"] else templates or None
