"""Where each token of a prompt or of an answer begins in its text."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from octavo.tokenizer import IncrementalDetokenizer

if TYPE_CHECKING:
    from octavo.tokenizer import Tokenizer
    from octavo.tokenizer.pieces import PieceTable

__all__ = ["TextOffsets"]


class TextOffsets:
    """Counts characters token by token. Half a character begins where the whole one does.

    Tokens that the text does not show, such as a first ``<s>``, take no room in it.
    """

    def __init__(self, tokenizer: Tokenizer | None, *, skip_special_tokens: bool) -> None:
        """``skip_special_tokens`` is the answer's. Without a tokenizer there is no text."""
        self.num_chars = 0
        self._special_ids = frozenset[int]() if tokenizer is None else tokenizer.special_ids
        self._skips = skip_special_tokens
        self._tokenizer = tokenizer
        self._widths: _Widths | None = None
        if tokenizer is not None:
            pieces = tokenizer.pieces
            self._widths = _DecodedWidths(tokenizer) if pieces is None else _PieceWidths(pieces)

    def prompt(self, token_ids: Sequence[int], text: str) -> list[int]:
        """Offsets of a prompt's tokens; of its special tokens, those show that ``text`` has."""
        offsets = [
            self._push(token_id) if self._shows(token_id, text) else self.num_chars
            for token_id in token_ids
        ]
        self.num_chars = len(text)
        return [min(offset, len(text)) for offset in offsets]

    def pass_over(self, token_ids: Sequence[int]) -> None:
        """Take note of a prompt that is not shown: an answer may begin inside a character."""
        for token_id in token_ids:
            if token_id not in self._special_ids:
                self._push(token_id)
        self.num_chars = 0

    def answer(self, token_ids: Sequence[int]) -> list[int]:
        """Offsets of further tokens of an answer."""
        skipped = self._special_ids if self._skips else ()
        return [
            self.num_chars if token_id in skipped else self._push(token_id)
            for token_id in token_ids
        ]

    def _shows(self, token_id: int, text: str) -> bool:
        """Whether a prompt's text has the token; of those that are not special, all."""
        if self._tokenizer is None or token_id not in self._special_ids:
            return True
        name = self._tokenizer.decode([token_id], skip_special_tokens=False)
        return text.startswith(name, self.num_chars)

    def _push(self, token_id: int) -> int:
        if self._widths is None:
            return self.num_chars
        lead, width = self._widths.push(token_id)
        offset = self.num_chars + lead
        self.num_chars += width
        return offset


class _Widths(Protocol):
    def push(self, token_id: int) -> tuple[int, int]:
        """(characters complete before the token begins, characters complete with it)."""


class _PieceWidths:
    """Where the bytes of tokens are known."""

    def __init__(self, pieces: PieceTable) -> None:
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = True

    def push(self, token_id: int) -> tuple[int, int]:
        piece = self._pieces[token_id]
        if self._at_start and piece:
            piece = self._pieces.join([token_id])
            self._at_start = False
        # What was pending becomes a character of its own if this token does not go on with it.
        pending = bytes(self._decoder.getstate()[0])
        lead = len((pending + piece[:1]).decode("utf-8", "replace")) - 1 if piece else 0
        return lead, len(self._decoder.decode(piece))


class _DecodedWidths:
    """Where decoding is more than joining bytes: what comes out at once begins at one place."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._detokenizer = IncrementalDetokenizer(tokenizer, skip_special_tokens=False)

    def push(self, token_id: int) -> tuple[int, int]:
        return 0, len(self._detokenizer.push([token_id]))
