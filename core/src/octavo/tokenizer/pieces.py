"""The bytes each token stands for: what decoding joins, whole or token by token."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = [
    "ByteSpelling",
    "DecodingRule",
    "LeadingSpace",
    "PieceTable",
    "byte_level_alphabet",
    "read_decoder",
]

ByteSpelling: TypeAlias = Callable[[str], bytes]
"""A token's spelling in the vocabulary → the bytes it stands for."""

LeadingSpace: TypeAlias = Literal["keep", "drop-one", "drop-in-first-token"]
"""What becomes of the space that SentencePiece puts before a text: the ``Strip`` decoder drops one
space, the ``Metaspace`` decoder every space marker in the first token."""

_SPACE_MARKER = "▁"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class DecodingRule:
    """How a decoder turns tokens into bytes.

    Added tokens of a byte-level vocabulary are ``added_verbatim``: they are written as they are
    meant, not in the byte alphabet. SentencePiece writes them with space markers like all others.
    """

    spelling: ByteSpelling
    leading_space: LeadingSpace = "keep"
    added_verbatim: bool = False


class PieceTable(dict[int, bytes]):
    """Token id → bytes, filled on demand: loading spells nothing, decoding only looks up.

    An id without a token stands for no bytes.
    """

    def __init__(
        self,
        id_to_token: Callable[[int], str],
        rule: DecodingRule,
        added_ids: frozenset[int] = frozenset(),
    ) -> None:
        super().__init__()
        self.leading_space = rule.leading_space
        self._id_to_token = id_to_token
        self._spelling = rule.spelling
        self._verbatim_ids = added_ids if rule.added_verbatim else frozenset[int]()

    def __missing__(self, token_id: int) -> bytes:
        token = self._id_to_token(token_id)
        verbatim = token_id in self._verbatim_ids
        piece = token.encode("utf-8", "replace") if verbatim else self._spelling(token)
        self[token_id] = piece
        return piece

    def join(self, ids: Iterable[int]) -> bytes:
        """The bytes of a whole text, with its first space treated as `leading_space` says."""
        first = b""
        ids = iter(ids)
        for token_id in ids:
            first = self.first_piece(token_id)
            if self[token_id]:
                break
        text = first + b"".join(map(self.__getitem__, ids))
        return text[1:] if self.leading_space == "drop-one" and text[:1] == b" " else text

    def first_piece(self, token_id: int) -> bytes:
        """The piece of the first token of a text."""
        piece = self[token_id]
        if self.leading_space == "drop-in-first-token":
            return piece.replace(b" ", b"")
        return piece


def byte_level_alphabet() -> dict[str, int]:
    """GPT-2's spelling of the 256 bytes as printable characters: character → byte.

    Bytes that are printable in Latin-1 stand for themselves; the others, in order, are the
    characters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + index): byte for index, byte in enumerate(others)})
    return alphabet


def read_decoder(decoder: Mapping[str, Any] | None) -> DecodingRule | None:
    """The rule of a tokenizer.json decoder, or None if it does more than join the tokens."""
    if decoder is None:
        return None
    steps = decoder.get("decoders", []) if decoder.get("type") == "Sequence" else [decoder]
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"]:
        return DecodingRule(_byte_level_spelling(), added_verbatim=True)
    if kinds == ["Metaspace"] and steps[0].get("replacement") == _SPACE_MARKER:
        kept = steps[0].get("prepend_scheme", "always") == "never"
        return DecodingRule(_spaced_bytes, "keep" if kept else "drop-in-first-token")
    if kinds[:3] == ["Replace", "ByteFallback", "Fuse"] and _replaces_marker(steps[0]):
        if not kinds[3:]:
            return DecodingRule(_sentencepiece_bytes)
        if kinds[3:] == ["Strip"] and _strips_one_space(steps[3]):
            return DecodingRule(_sentencepiece_bytes, "drop-one")
    return None


def _byte_level_spelling() -> ByteSpelling:
    alphabet = byte_level_alphabet()

    def spell(token: str) -> bytes:
        try:
            return bytes([alphabet[character] for character in token])
        except KeyError:  # not written in the byte alphabet: an added token, spelled as it is
            return token.encode("utf-8", "replace")

    return spell


def _sentencepiece_bytes(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else _spaced_bytes(token)


def _spaced_bytes(token: str) -> bytes:
    return token.replace(_SPACE_MARKER, " ").encode("utf-8", "replace")


def _replaces_marker(step: Mapping[str, Any]) -> bool:
    return step.get("pattern") == {"String": _SPACE_MARKER} and step.get("content") == " "


def _strips_one_space(step: Mapping[str, Any]) -> bool:
    return (step.get("content"), step.get("start"), step.get("stop")) == (" ", 1, 0)
