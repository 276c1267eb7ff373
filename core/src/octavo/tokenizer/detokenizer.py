"""Text from tokens as they come, never half a character."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Sequence
from typing import Protocol

from octavo.tokenizer.base import Tokenizer
from octavo.tokenizer.pieces import PieceTable

__all__ = ["IncrementalDetokenizer"]

_MAX_PENDING_BYTES = 3  # of the four that a UTF-8 character may have
_MAX_HELD_TOKENS = 16  # without a table: a character unfinished for longer is never finished
_WINDOW_TOKENS = 5  # without a table: context that decides the spaces before the next token


class IncrementalDetokenizer:
    """Streams the text of one answer.

    All pushes and the flush, joined, equal ``tokenizer.decode(ids)``; after a prompt they equal
    what the answer adds to ``tokenizer.decode(prompt_token_ids)``, so its first space survives. A
    character that the prompt cut in half comes whole with the first push. The cost of a push does
    not depend on what came before. Special tokens are left out, but for the kept ones.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        skip_special_tokens: bool = True,
        kept_special_tokens: Collection[int] = (),
        spaces_between_special_tokens: bool = True,
        prompt_token_ids: Sequence[int] = (),
    ) -> None:
        skipped = tokenizer.special_ids if skip_special_tokens else frozenset[int]()
        skipped = skipped.difference(kept_special_tokens)
        self._stream: _TokenStream
        if tokenizer.pieces is not None:
            self._stream = _PieceStream(tokenizer.pieces, skipped, prompt_token_ids)
        else:
            self._stream = _WindowStream(
                tokenizer, skipped, spaces_between_special_tokens, prompt_token_ids
            )

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that these tokens complete."""
        return self._stream.push(token_ids)

    def flush(self) -> str:
        """What was held back; an unfinished character as U+FFFD. Nothing may be pushed after."""
        return self._stream.flush()


class _TokenStream(Protocol):
    def push(self, token_ids: Sequence[int]) -> str: ...

    def flush(self) -> str: ...


class _PieceStream:
    """Joins pieces; only an unfinished character and the first space need memory."""

    def __init__(
        self, pieces: PieceTable, skipped: frozenset[int], prompt_token_ids: Sequence[int]
    ) -> None:
        self._pieces = pieces
        self._skipped = skipped
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        tail = self._tail(prompt_token_ids)
        self._at_start = not tail
        self._decoder.decode(tail)

    def _tail(self, prompt_token_ids: Sequence[int]) -> bytes:
        """The prompt's last bytes: enough to hold its unfinished character."""
        tail = b""
        for token_id in reversed(prompt_token_ids):
            if len(tail) > _MAX_PENDING_BYTES:
                break
            if token_id not in self._skipped:
                tail = self._pieces[token_id] + tail
        return tail

    def push(self, token_ids: Sequence[int]) -> str:
        skipped, pieces = self._skipped, self._pieces
        kept = [token_id for token_id in token_ids if token_id not in skipped]
        if self._at_start:
            return self._decoder.decode(self._first_bytes(kept))
        return self._decoder.decode(b"".join([pieces[token_id] for token_id in kept]))

    def _first_bytes(self, kept: list[int]) -> bytes:
        self._at_start = not any(self._pieces[token_id] for token_id in kept)
        return self._pieces.join(kept)

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


class _WindowStream:
    """For decoders that look at neighbours: decodes the last few tokens with and without the new.

    The window that is decoded again is bounded, so the cost of a token is constant.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        skipped: frozenset[int],
        spaces_between_special_tokens: bool,
        prompt_token_ids: Sequence[int],
    ) -> None:
        self._tokenizer = tokenizer
        self._skipped = skipped
        self._spaces = spaces_between_special_tokens
        self._context = self._keep(prompt_token_ids)[-_WINDOW_TOKENS:]
        self._held: list[int] = []

    def _keep(self, token_ids: Sequence[int]) -> list[int]:
        """Without ids that have no token: they would fill the window and hide the context."""
        token_of = self._tokenizer.id_to_token
        return [i for i in token_ids if i not in self._skipped and token_of(i)]

    def push(self, token_ids: Sequence[int]) -> str:
        return "".join(map(self._push_one, self._keep(token_ids)))

    def _push_one(self, token_id: int) -> str:
        self._held.append(token_id)
        text = self._new_text()
        if text.endswith("\ufffd") and len(self._held) < _MAX_HELD_TOKENS:
            return ""
        self._context = (self._context + self._held)[-_WINDOW_TOKENS:]
        self._held = []
        return text

    def _new_text(self) -> str:
        before = self._decode(self._context)
        return self._decode(self._context + self._held)[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(
            ids, skip_special_tokens=False, spaces_between_special_tokens=self._spaces
        )

    def flush(self) -> str:
        text = self._new_text()
        self._held = []
        return text
